/** Tells of commands that failed because the system said so: once a second and namespace at most. */
import type { Request } from '../bdev/backend.ts';
import type { Op } from '../bdev/op.ts';
import type { IoController, IoNamespace } from './io-view.ts';
import type { RoundClock } from './round-clock.ts';

/** Between two failures of a namespace that are told of. Nanoseconds. */
const TELL_NS = 1e9;

export interface IoFailure {
  /** Its id. */
  readonly controller: number;
  readonly nsid: number;
  readonly op: Op;
  /** Or END_OF_FILE. */
  readonly errno: number;
  /** Where it failed; of no meaning for a Flush. */
  readonly lba: number;
  /** Failures of the namespace since the last that was told of, with this one. */
  readonly count: number;
}

export class IoFailures {
  readonly #request: Request;
  readonly #clock: RoundClock;
  readonly #tell: (failure: IoFailure) => void;

  constructor(request: Request, clock: RoundClock, tell: (failure: IoFailure) => void) {
    this.#request = request;
    this.#clock = clock;
    this.#tell = tell;
  }

  /** A backend has just failed a command, or holds it back: tells of it if the request names an errno. */
  look({ id }: IoController, namespace: IoNamespace, op: Op): void {
    const request = this.#request;
    const { errno } = request;
    if (errno === 0) {
      return;
    }
    request.errno = 0;
    namespace.failures += 1;
    const now = this.#clock.now[0];
    if (now - namespace.toldAt >= TELL_NS) {
      this.#tell({
        controller: id,
        nsid: namespace.nsid,
        op,
        errno,
        lba: Math.floor(request.offset[0] / 2 ** namespace.blockShift),
        count: namespace.failures,
      });
      namespace.toldAt = now;
      namespace.failures = 0;
    }
  }
}
