/** The null bdev: accepts writes, leaves read buffers as they are, at once. As SPDK's bdev_null, for measuring. */
import type { Backend } from './backend.ts';

export class NullBackend implements Backend {
  readonly async = false;

  submit(): number {
    return 0;
  }

  complete(): number {
    return 0;
  }

  close(): void {}
}
