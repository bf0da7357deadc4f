/** Plain data → backend. Runs inside a reactor. */
import type { Backend } from './backend.ts';
import type { BackendDescriptor } from './bdev.ts';
import { BounceBackend } from './bounce.ts';
import type { BackendContext } from './context.ts';
import { DelayBackend } from './delay.ts';
import { ErrorBackend } from './error.ts';
import { MallocBackend } from './malloc.ts';
import { NullBackend } from './null.ts';
import { UringBackend } from './uring.ts';

export function openBackend(descriptor: BackendDescriptor, context: BackendContext): Backend {
  switch (descriptor.kind) {
    case 'null':
      return new NullBackend();
    case 'malloc':
      return new MallocBackend(descriptor.memory, context);
    case 'uring': {
      const backend = new UringBackend(descriptor, context);
      return descriptor.alignment === 1 && !descriptor.ownBuffers
        ? backend
        : new BounceBackend(backend, descriptor, context);
    }
    case 'delay':
      return new DelayBackend(descriptor.latencies, openBackend(descriptor.base, context), context);
    case 'error':
      return new ErrorBackend(
        descriptor.injections,
        openBackend(descriptor.base, context),
        context,
      );
  }
}
