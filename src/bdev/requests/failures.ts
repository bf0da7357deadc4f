/** Errors that backends report, told once a second and share at most: a disk that is broken breaks every command. */
import type { Request } from '../backend.ts';
import type { Op } from '../op.ts';
import type { RoundClock } from './clock.ts';
import type { Share } from './share.ts';

/** Between two failures of a share that are told of. Nanoseconds. */
const TELL_NS = 1e9;

export class Failures {
  readonly #request: Request;
  readonly #clock: RoundClock;

  constructor(request: Request, clock: RoundClock) {
    this.#request = request;
    this.#clock = clock;
  }

  /** A backend has just failed a request, or holds it back (PENDING): tells of it if the request names an errno. */
  look(share: Share, op: Op, result: number): void {
    const request = this.#request;
    const { errno } = request;
    if (errno === 0) {
      return;
    }
    request.errno = 0;
    share.failures += 1;
    const now = this.#clock.now[0];
    if (now - share.toldAt >= TELL_NS) {
      share.failed(op, errno, request.offset[0], share.failures, result);
      share.toldAt = now;
      share.failures = 0;
    }
  }
}
