/** How V8 is to compile the reactors' loop. */
import { setFlagsFromString } from 'node:v8';

/**
 * Bytecode of small functions that the compiler may make part of one that calls them, in all. A turn of a reactor passes through more layers
 * than V8's own bound (920) covers; calls between them would take a tenth of the time of a command (`npm run bench:turn`).
 */
const INLINED_BYTECODE = 3000;

/** For the whole process. To be called before the functions are compiled: when a reactor's thread starts. */
export function inlineAcrossLayers(): void {
  setFlagsFromString(`--max-inlined-bytecode-size-cumulative=${INLINED_BYTECODE}`);
}
