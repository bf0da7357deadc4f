/** Loads the addon: the only importer of the .node file. */
import { createRequire } from 'node:module';
import type { NativeAddon } from './types.ts';

const require = createRequire(import.meta.url);

function load(): NativeAddon {
  // Two places, one depth apart: compiled (dist/src/native) and, under Node's type stripping, as it is (src/native).
  const path = import.meta.url.endsWith('.ts')
    ? '../../build/Release/doorbell.node'
    : '../../../build/Release/doorbell.node';
  try {
    return require(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'MODULE_NOT_FOUND') throw error;
    throw new Error('doorbell: the addon is not built: run `npm run build`', { cause: error });
  }
}

export const native: NativeAddon = load();

export type * from './types.ts';
