/** Loads the addon: the only importer of the .node file. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type { NativeAddon } from './types.ts';

const require = createRequire(import.meta.url);

/** Built here, or as the package brings it for this Node (src/setup/prebuilt.mjs). */
const PLACES = [
  'build/Release/doorbell.node',
  `prebuilds/linux-${process.arch}/doorbell.abi${process.versions.modules}.glibc.node`,
];

function load(): NativeAddon {
  // Compiled code lies one folder deeper (dist/src/native) than the source that Node runs with its types stripped.
  const root = new URL(import.meta.url.endsWith('.ts') ? '../../' : '../../../', import.meta.url);
  const paths = PLACES.map((place) => fileURLToPath(new URL(place, root)));
  const path = paths.find((candidate) => existsSync(candidate));
  if (path === undefined) {
    throw new Error('the native addon is not built: run `npm run build`');
  }
  try {
    return require(path);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ERR_DLOPEN_FAILED') {
      throw new Error('the native addon does not fit this Node.js: run `npm run build`', { cause });
    }
    throw cause;
  }
}

export const native: NativeAddon = load();

export type * from './types.ts';
