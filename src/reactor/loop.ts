/**
 * The reactor: mailbox → plane → request layer → ring → completions → interrupts → rest. Runs until told to stop, on a worker thread whose
 * event loop never turns. It knows no protocol: that is its plane's (`plane.ts`).
 */
import { Request } from '../bdev/backend.ts';
import type { BackendContext } from '../bdev/context.ts';
import { Counters } from '../bdev/counters.ts';
import { EndedSlots } from '../bdev/requests/ended.ts';
import { Requests } from '../bdev/requests/layer.ts';
import { SyncLinks } from '../bdev/requests/syncs.ts';
import { Transfers } from '../bdev/transfers.ts';
import { CopyBatch } from '../io/copies.ts';
import { RegisteredFiles } from '../io/files.ts';
import { type Ring, WAKE } from '../io/ring.ts';
import { RingTags } from '../io/tags.ts';
import { Timers } from '../io/timers.ts';
import { MAX_INFLIGHT, MAX_MESSAGES_PER_ROUND } from '../limits.ts';
import { type PlaneMessage, type ReactorTask, Total, Word } from './control.ts';
import type { MakePlane, Plane } from './plane.ts';
import type { Platform } from './platform.ts';
import { Rest, type Sleeper } from './rest.ts';

/** In place of the id of a `stop` message. */
const EXITING = 0;
const RUNNING = -1;
const UNBOUNDED = -1;
/** Rounds after which a host is interrupted that does not get on with what it was interrupted for before. */
const ROUNDS_PER_SIGNAL = 64;
/** Copies collected before they are run in any case. */
const COPY_BATCH = 1024;

export class Reactor implements Sleeper {
  readonly #task: ReactorTask;
  readonly #platform: Platform;
  readonly #ring: Ring;
  readonly #tags: RingTags;
  readonly #requests: Requests;
  readonly #syncs = new SyncLinks();
  readonly #plane: Plane;
  readonly #rest: Rest;
  readonly #words: Int32Array;
  readonly #totals: Float64Array;
  /** Messages of main that were read. */
  #messages = 0;
  #stopId = RUNNING;
  #ends = false;
  /** Owners whose memory is in use by what is left, when it dies. */
  #holders: ReadonlySet<number> = new Set();
  /** Rounds in which an interrupt was held back. */
  #heldRounds = 0;

  constructor(task: ReactorTask, platform: Platform, makePlane: MakePlane) {
    this.#task = task;
    this.#platform = platform;
    this.#words = new Int32Array(task.control);
    this.#totals = new Float64Array(task.control);
    this.#ring = platform.ring;
    this.#tags = new RingTags(this.#ring);
    const { system } = platform;
    const context: BackendContext = {
      reactor: task.index,
      system,
      ring: this.#ring,
      files: new RegisteredFiles(this.#ring, system),
      copies: new CopyBatch(COPY_BATCH, system),
      request: new Request(),
      transfers: new Transfers(system),
      timers: new Timers(this.#ring, system),
      tags: this.#tags,
      syncs: this.#syncs,
      ended: new EndedSlots(),
      bounces: undefined,
      steps: undefined,
      kept: undefined,
      nbd: undefined,
    };
    this.#requests = new Requests(context);
    this.#plane = makePlane({
      context,
      requests: this.#requests,
      counters: task.counters,
      answer: (id, status) => platform.post({ kind: 'done', id, status }),
      tell: (message: PlaneMessage) => platform.post({ kind: 'plane', message }),
      reclaim: () => platform.reclaim(),
      interrupted: () => {
        this.#totals[Total.INTERRUPTS] += 1;
      },
    });
    this.#rest = new Rest(task, this, system);
  }

  /**
   * Returns when a `stop` message was carried out. If it throws, nothing of this reactor is under way in the kernel any more, unless the
   * kernel refuses to tell.
   */
  run(): void {
    try {
      this.start();
      while (this.turn()) {
        // Everything happens in the turn.
      }
    } catch (error) {
      this.die(error as Error);
      throw error;
    } finally {
      try {
        while (!this.end()) {
          // The kernel is waited for.
        }
      } finally {
        this.#requests.flight.forgetAll();
        this.#syncs.forget();
      }
    }
  }

  /** Before the first turn. */
  start(): void {
    this.#ring.preparePoll(this.#task.wakeFd, WAKE);
    this.#platform.post({ kind: 'ready', ringFd: this.#ring.fd, tid: this.#platform.tid });
  }

  /** One turn over everything there is to look at, and a rest if there was nothing. False when the reactor was told to stop. */
  turn(): boolean {
    const work = this.#round();
    if (this.#stopId !== RUNNING) {
      if (this.#stopId !== EXITING) {
        this.#platform.post({ kind: 'done', id: this.#stopId, status: 0 });
      }
      return false;
    }
    if (work > 0) {
      this.#rest.busy();
    } else {
      this.#rest.idle();
    }
    return true;
  }

  #leave(): void {
    this.#ends = true;
    this.#requests.flight.leaveAll();
    this.#tags.retireAll();
  }

  /** Main learns of it at once: whoever has nothing under way here need not wait for those who have. */
  die(error: Error): void {
    this.#syncs.dead = true;
    this.#leave();
    this.#holders = this.#requests.flight.holders();
    this.#platform.post({ kind: 'dying', message: error.message, holders: [...this.#holders] });
  }

  /**
   * Waits for operations under way, whose buffers others may be about to reuse, until some are over. Their commands are lost with the
   * reactor. True when none is left.
   */
  end(): boolean {
    const ring = this.#ring;
    if (this.#stopId === EXITING || Atomics.load(this.#words, Word.EXITING) === 1) {
      // The process ends, and all its memory with it. A disk that hangs must not keep it from that.
      return true;
    }
    if (!this.#ends) {
      this.#leave();
    }
    if (ring.inflight > 0) {
      ring.wait(UNBOUNDED);
      const count = ring.ready();
      for (let i = 0; i < count; i++) {
        const slot = ring.userData(i);
        if (slot >>> 0 < MAX_INFLIGHT) {
          ring.inflight -= 1;
          this.#endOne(slot, ring.result(i));
        } else if (slot >= 0) {
          this.#tags.completed(slot, ring.result(i));
        }
      }
      ring.advance(count);
      this.#tellWhoLeft();
    }
    return ring.inflight === 0;
  }

  #tellWhoLeft(): void {
    if (this.#holders.size > 0) {
      const left = this.#requests.flight.holders();
      for (const owner of this.#holders) {
        if (!left.has(owner)) {
          this.#platform.post({ kind: 'left', owner });
        }
      }
      this.#holders = left;
    }
  }

  #endOne(slot: number, result: number): void {
    try {
      this.#requests.finish(slot, result);
    } catch {
      // What the reactor died of may well come again: it is to be waited for all the same.
    }
  }

  /** Returns how much there was to do. */
  #round(): number {
    const requests = this.#requests;
    const plane = this.#plane;
    let work = 0;
    if (this.#words[Word.MESSAGES] !== this.#messages) {
      this.#readMailbox();
      work += 1;
    }
    requests.clock.begin();
    const taken = plane.poll();
    this.#rest.polled(taken > 0);
    work += taken;
    if (requests.waiting.resumes) {
      work += requests.waiting.resume();
    }
    work += this.#pollRing();
    if (requests.ends) {
      requests.finishEnded();
      work += 1;
    }
    plane.publish();
    if (requests.flight.settles) {
      requests.flight.settle();
      work += 1;
    }
    plane.settle();
    this.#signal(false);
    return work + plane.watch();
  }

  #pollRing(): number {
    const ring = this.#ring;
    if (ring.wantsEnter) {
      ring.submit();
    }
    const count = ring.ready();
    if (count === 0) {
      return 0;
    }
    this.#requests.clock.read();
    for (let i = 0; i < count; i++) {
      const slot = ring.userData(i);
      if (slot >>> 0 < MAX_INFLIGHT) {
        ring.inflight -= 1;
        this.#requests.finish(slot, ring.result(i));
      } else if (slot >= 0) {
        this.#tags.completed(slot, ring.result(i));
      } else if (slot === WAKE) {
        this.#platform.readWake();
        if (!ring.more(i)) {
          ring.preparePoll(this.#task.wakeFd, WAKE);
        }
      } else {
        this.#plane.heard(slot);
      }
    }
    ring.advance(count);
    return count;
  }

  /** Interrupts the hosts that wait; those still busy with the last interrupt are looked at again in the next round. */
  #signal(now: boolean): void {
    this.#heldRounds += 1;
    const held = this.#plane.signal(now || this.#heldRounds >= ROUNDS_PER_SIGNAL);
    if (held === 0) {
      this.#heldRounds = 0;
    }
  }

  /** Carries out what main asks for: a bounded part, as the queues want to be looked at as well. */
  #readMailbox(): void {
    if (Atomics.load(this.#words, Word.EXITING) === 1) {
      this.#stopId = EXITING;
      return;
    }
    // The word is raised after the message was posted, so all that it counts can be read.
    const posted = Atomics.load(this.#words, Word.MESSAGES);
    for (let i = 0; i < MAX_MESSAGES_PER_ROUND && this.#messages !== posted; i++) {
      const message = this.#platform.receive();
      this.#messages = (this.#messages + 1) | 0;
      if (message === undefined) {
        continue;
      }
      const { id, request } = message;
      if (request.kind === 'stop') {
        this.#stopId = id;
      } else if (request.kind === 'report') {
        this.#rest.account();
        this.#plane.report();
        this.#platform.post({ kind: 'done', id, status: 0 });
      } else if (request.kind === 'clear-extremes') {
        new Counters(this.#task.counters, request.row).clearExtremes();
        this.#platform.post({ kind: 'done', id, status: 0 });
      } else {
        this.#plane.handle(id, request.message);
      }
    }
  }

  // --- rest ---------------------------------------------------------------------------------------------------------

  get inflight(): number {
    return this.#requests.slots.count;
  }

  get quick(): boolean {
    return this.#requests.flight.quick;
  }

  get unheard(): boolean {
    return this.#plane.unheard;
  }

  get due(): number {
    return Math.min(this.#requests.waiting.due, this.#plane.due);
  }

  arm(): void {
    this.#plane.arm();
  }

  hush(): void {
    this.#plane.hush();
  }

  sleep(microseconds: number, completions: number): void {
    this.#signal(true);
    // One completion of a tag may be all that comes, and end every request.
    this.#ring.wait(microseconds, this.#tags.any ? 1 : completions);
  }
}
