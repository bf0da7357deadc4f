/** The registry of kinds of bdevs: main's half; that of reactors is `open.ts`. */
import type { BdevKind } from './kind.ts';
import { addKindRules } from './kind-rules.ts';
import { DELAY } from './kinds/delay.ts';
import { ERROR } from './kinds/error.ts';
import { AIO, URING } from './kinds/file.ts';
import { MALLOC } from './kinds/malloc.ts';
import { NBD } from './kinds/nbd.ts';
import { NULL } from './kinds/null.ts';

export const BDEV_KINDS = [AIO, URING, MALLOC, NULL, NBD, DELAY, ERROR] as const;

const byName = new Map<string, BdevKind>();

/** Registers a kind. Its name is no other's. */
export function registerBdevKind(kind: BdevKind): void {
  if (byName.has(kind.name)) {
    throw new Error(`there is a kind of bdev named ${kind.name}`);
  }
  byName.set(kind.name, kind);
  addKindRules(kind);
}

for (const kind of BDEV_KINDS) {
  registerBdevKind(kind);
}

/** Throws if there is none: the name is a bdev's, or was checked. */
export function bdevKind(name: string): BdevKind {
  const kind = byName.get(name);
  if (kind === undefined) {
    throw new Error(`there is no kind of bdev named ${name}`);
  }
  return kind;
}
