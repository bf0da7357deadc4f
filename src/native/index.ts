/** Loads the addon: the only importer of the .node file. */
import { createRequire } from 'node:module';
import type { NativeAddon } from './types.ts';

const require = createRequire(import.meta.url);

export const native: NativeAddon = require('../../../build/Release/doorbell.node');

export type * from './types.ts';
