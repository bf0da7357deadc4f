/**
 * Plain data → backend: the reactors' half of the registry of kinds (`kinds.ts` is main's). Runs inside a reactor, and loads nothing that is
 * main's.
 */
import type { Backend } from './backend.ts';
import type { BackendDescriptor } from './bdev.ts';
import { BounceBackend } from './bounce.ts';
import type { BackendContext } from './context.ts';
import type { MallocDescriptor } from './create.ts';
import { DelayBackend } from './delay.ts';
import { ErrorBackend } from './error.ts';
import type { FileDescriptor } from './file.ts';
import { MallocBackend } from './malloc.ts';
import { openNbd } from './nbd/backend.ts';
import type { NbdDescriptor } from './nbd/descriptor.ts';
import { NullBackend } from './null.ts';
import { UringBackend } from './uring.ts';
import { makeWhole } from './whole.ts';
import type { DelayDescriptor, ErrorDescriptor } from './wrapper.ts';

/** A reactor's way to a bdev of one kind of descriptor. */
export type OpenBackend = (descriptor: BackendDescriptor, context: BackendContext) => Backend;

/** By the `kind` of the descriptor. */
const openers = new Map<string, OpenBackend>();

/** Registers a kind of descriptor, which is no other's. */
export function registerBackend(kind: string, open: OpenBackend): void {
  if (openers.has(kind)) {
    throw new Error(`there is a kind of descriptor named ${kind}`);
  }
  openers.set(kind, open);
}

export function openBackend(descriptor: BackendDescriptor, context: BackendContext): Backend {
  const open = openers.get(descriptor.kind);
  if (open === undefined) {
    throw new Error(`there is no kind of descriptor named ${descriptor.kind}`);
  }
  return open(descriptor, context);
}

registerBackend('null', () => new NullBackend());
registerBackend('malloc', (descriptor, context) => {
  const { memory } = descriptor as MallocDescriptor;
  return makeWhole(new MallocBackend(memory, context), context);
});
registerBackend('uring', (descriptor, context) => {
  const file = descriptor as FileDescriptor;
  const backend = new UringBackend(file, context);
  const bounces = file.alignment > 1 || file.ownBuffers;
  return makeWhole(bounces ? new BounceBackend(backend, file, context) : backend, context);
});
registerBackend('nbd', (descriptor, context) =>
  makeWhole(openNbd(descriptor as NbdDescriptor, context), context),
);
registerBackend('delay', (descriptor, context) => {
  const { latencies, base } = descriptor as DelayDescriptor;
  return new DelayBackend(latencies, openBackend(base, context), context);
});
registerBackend('error', (descriptor, context) => {
  const { injections, base } = descriptor as ErrorDescriptor;
  return new ErrorBackend(injections, openBackend(base, context), context);
});
