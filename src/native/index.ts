/** Loads the addon: the only importer of the .node file. */
import { createRequire } from 'node:module';
import type { NativeAddon } from './types.ts';

const require = createRequire(import.meta.url);

function load(): NativeAddon {
  // Compiled code lies one folder deeper (dist/src/native) than the source that Node runs with its types stripped.
  const root = import.meta.url.endsWith('.ts') ? '../..' : '../../..';
  try {
    return require(`${root}/build/Release/doorbell.node`);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'MODULE_NOT_FOUND') {
      throw new Error('the native addon is not built: run `npm run build`', { cause });
    }
    if (code === 'ERR_DLOPEN_FAILED') {
      throw new Error('the native addon does not fit this Node.js: run `npm run build`', { cause });
    }
    throw cause;
  }
}

export const native: NativeAddon = load();

export type * from './types.ts';
