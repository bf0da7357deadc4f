/** The null bdev: does nothing, at once, and leaves read buffers as they are. As SPDK's bdev_null, for measuring. It compares equal with all. */
import type { Backend } from './backend.ts';
import { ALL_OPS } from './op.ts';

export class NullBackend implements Backend {
  readonly async = false;
  readonly operations = ALL_OPS;

  submit(): number {
    return 0;
  }

  complete(): number {
    return 0;
  }

  close(): void {}
}
