/** The RAM bdev: copies between guest memory and one shared anonymous mapping. All reactors copy to the same memory. */
import type { CopyBatch } from '../io/copies.ts';
import { MAX_ZEROED_MEMORY_BYTES } from '../limits.ts';
import type { Backend, Request } from './backend.ts';
import type { BackendContext } from './context.ts';
import { Op, opSet } from './op.ts';
import { Result } from './result.ts';

export class MallocBackend implements Backend {
  readonly async = false;
  readonly operations = opSet(Op.READ, Op.WRITE, Op.FLUSH, Op.WRITE_ZEROES, Op.DISCARD, Op.VERIFY);
  readonly zeroStep = MAX_ZEROED_MEMORY_BYTES;
  readonly #copies: CopyBatch;
  readonly #request: Request;
  /** Keeps the mapping alive as long as its address is used. */
  readonly memory: SharedArrayBuffer;
  /** Host address of the memory. */
  readonly #base: number;
  /** Host address of the command's first byte, at index 0. */
  readonly #position = new Float64Array(1);
  /** What is to be zeroed: host address and bytes. */
  readonly #zeroed = new Float64Array(new SharedArrayBuffer(24));
  readonly #zero: () => void;

  constructor(memory: SharedArrayBuffer, context: BackendContext) {
    this.memory = memory;
    this.#base = context.system.addressOf(new Uint8Array(memory, 0, 1));
    this.#zero = context.system.bindZeroMemory(this.#zeroed);
    this.#copies = context.copies;
    this.#request = context.request;
  }

  /** The copy runs when the reactor flushes its batch, which is before it publishes the completion. */
  submit(op: Op): number {
    if (op > Op.WRITE) {
      return this.#rare(op);
    }
    const { segments, offset } = this.#request;
    this.#position[0] = this.#base + offset[0];
    let done = 0;
    for (let i = 0; i < segments.count; i++) {
      const length = segments.length[i];
      if (op === Op.READ) {
        this.#copies.push(segments.address, i, 0, this.#position, 0, done, length);
      } else {
        this.#copies.push(this.#position, 0, done, segments.address, i, 0, length);
      }
      done += length;
    }
    return 0;
  }

  /** Zeroes take no pages. */
  #rare(op: Op): number {
    if (op === Op.WRITE_ZEROES || op === Op.DISCARD) {
      this.#copies.flush();
      this.#zeroed[0] = this.#base + this.#request.offset[0];
      this.#zeroed[1] = this.#request.length;
      this.#zero();
    }
    return Result.OK;
  }

  complete(): number {
    return 0;
  }

  close(): void {}
}
