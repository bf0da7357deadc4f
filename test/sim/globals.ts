/** Timers, the wall clock and chance, as JavaScript has them, made up for as long as a simulation runs. */
import type { Random } from '../helpers/random.ts';
import type { Timeline } from './timeline.ts';

const real = { setTimeout, clearTimeout, now: Date.now, random: Math.random };
const immediate = setImmediate;

/** What waited for promises has gone on, as far as it can. */
export function settled(): Promise<void> {
  return new Promise((resolve) => immediate(resolve));
}

/** What it returns makes them real again. */
export function fakeGlobals(timeline: Timeline, random: Random): () => void {
  const timers = new Map<number, () => void>();
  let next = 1;
  const fake = {
    setTimeout(run: () => void, ms: number): number {
      const id = next++;
      timers.set(id, timeline.after(ms * 1e6, run));
      return id;
    },
    clearTimeout(id: number): void {
      timers.get(id)?.();
      timers.delete(id);
    },
  };
  Object.assign(globalThis, fake);
  Date.now = () => timeline.now / 1e6;
  Math.random = () => random.bits() / 2 ** 32;
  return () => {
    Object.assign(globalThis, { setTimeout: real.setTimeout, clearTimeout: real.clearTimeout });
    Date.now = real.now;
    Math.random = real.random;
  };
}
