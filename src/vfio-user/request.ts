/** What the handlers of commands share: the shape of a handler, and reading of payloads. */
import type { Fields, NumberField, Struct, StructValues } from '../util/struct.ts';
import type { Message } from './codec.ts';
import type { VfioUserDevice } from './device.ts';
import type { DmaTable } from './dma-table.ts';
import type { Terms } from './negotiate.ts';
import { Refusal } from './refusal.ts';

/** One client's session as handlers see it. */
export interface Context {
  readonly device: VfioUserDevice;
  readonly terms: Terms;
  /** What the client has mapped. */
  readonly dma: DmaTable;
}

export interface Reply {
  readonly payload: Uint8Array;
  /** Sent along; they stay their owner's. */
  readonly fds?: readonly number[];
}

/**
 * Carries out one command. Throws, or rejects, to refuse. It takes descriptors out of `request.fds` only to hand them on in the same
 * breath; the caller closes the rest.
 */
export type Handler = (context: Context, request: Message) => Reply | Promise<Reply>;

/** The reply of commands that answer with a header alone. */
export const DONE: Reply = { payload: new Uint8Array(0) };

/** A reply once the device is done: at once if it is done already. */
export function whenDone(done: Promise<void> | void, reply: Reply): Reply | Promise<Reply> {
  return done instanceof Promise ? done.then(() => reply) : reply;
}

/** Reads the structure at the start of a payload. Numbers above 2^53 may be rounded. */
export function readRounded<F extends Fields>(
  request: Message,
  struct: Struct<F>,
): StructValues<F> {
  if (request.payload.length < struct.size) {
    throw new Refusal(
      'EINVAL',
      `${request.payload.length} bytes of payload, ${struct.name} has ${struct.size}`,
    );
  }
  return struct.read(request.view);
}

/** The same. A number above 2^53 is refused, since it cannot be exact. */
export function readPayload<F extends Fields>(
  request: Message,
  struct: Struct<F>,
): StructValues<F> {
  const values = readRounded(request, struct);
  for (const [name, value] of Object.entries(values)) {
    if (typeof value === 'number' && !Number.isSafeInteger(value)) {
      throw new Refusal('EINVAL', `${struct.name}.${name} is above 2^53`);
    }
  }
  return values;
}

type NumberFields = Readonly<Record<string, NumberField>>;

/** As `readPayload`, for structures that say in `argsz` how much the client takes or sends. */
export function readSized<F extends NumberFields & { readonly argsz: NumberField }>(
  request: Message,
  struct: Struct<F>,
): StructValues<F> {
  const values = readPayload(request, struct);
  checkArgsz(values.argsz, struct);
  return values;
}

/** Refuses an `argsz` that does not hold the structure. */
export function checkArgsz(
  argsz: number,
  { size, name }: { readonly size: number; readonly name: string },
): void {
  if (argsz < size) {
    throw new Refusal('EINVAL', `argsz ${argsz}, ${name} has ${size} bytes`);
  }
}
