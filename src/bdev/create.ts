/**
 * Bdevs without a file, made on the main thread: null and malloc. Files are in `file.ts`. How a reactor does I/O on them is
 * in `null.ts` and `malloc.ts`.
 */
import { PAGE_SIZE } from '../limits.ts';
import { native } from '../native/index.ts';
import { ErrnoError } from '../util/errors.ts';
import type { BackendDescriptor } from './bdev.ts';
import { type BdevIdentity, Disk, type Geometry } from './disk.ts';

/** Discards writes; reads leave the guest's buffer as it is. */
export class NullBdev extends Disk {
  readonly module = 'null';
  readonly productName = 'Null disk';
  readonly readonly = false;
  readonly backend = { kind: 'null' } as const;
  readonly driverSpecific = {};

  get hints() {
    return { granularity: this.blockSize, readsZeroes: false };
  }

  async sync(): Promise<void> {}

  async close(): Promise<void> {
    this.uncorrectable.close();
  }
}

/** Of a RAM disk. */
export interface MallocDescriptor extends BackendDescriptor {
  readonly kind: 'malloc';
  readonly memory: SharedArrayBuffer;
}

/** RAM. A page is taken from the system when it is first written. */
export class MallocBdev extends Disk {
  readonly module = 'malloc';
  readonly productName = 'Malloc disk';
  readonly readonly = false;
  readonly backend: MallocDescriptor;
  readonly driverSpecific = {};
  readonly hints = { granularity: PAGE_SIZE, readsZeroes: true };
  #closed = false;

  /** Throws InvalidError, or ENOMEM if the system does not give the address space. */
  constructor(identity: BdevIdentity, geometry: Geometry) {
    super(identity, geometry);
    this.backend = { kind: 'malloc', memory: allocate(geometry.blockSize * geometry.numBlocks) };
  }

  async sync(): Promise<void> {}

  /** Gives the pages back at once; the addresses go when the last reactor has dropped them. */
  async close(): Promise<void> {
    if (!this.#closed) {
      this.#closed = true;
      this.uncorrectable.close();
      native.revoke(new DataView(this.backend.memory));
    }
  }
}

function allocate(bytes: number): SharedArrayBuffer {
  const length = Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE;
  try {
    return native.mapAnonymous(length, true);
  } catch (error) {
    // Too large for a SharedArrayBuffer at all.
    throw error instanceof RangeError
      ? new ErrnoError('ENOMEM', `a RAM disk of ${bytes} bytes`)
      : error;
  }
}
