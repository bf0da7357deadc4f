/**
 * The reactor: mailbox → doorbells → I/O engine → io_uring → completions → interrupts → rest. Runs until told to stop, on a worker
 * thread whose event loop never turns.
 *
 * Idle, it polls on for `spinUs`, then sleeps in io_uring, woken by a completion or by main's eventfd. A client that maps the doorbells
 * writes them without telling anyone; for its sake a sleep lasts a fraction of the time that was idle so far, so that no command waits
 * much longer than the host has; and, once long idle, as long as keeps the cost of waking up under IDLE_SHARE. Where every doorbell that
 * matters is heard (trapped, or shadowed and trapped), it sleeps until there is something to do.
 */
import { receiveMessageOnPort } from 'node:worker_threads';
import { Request } from '../bdev/backend.ts';
import type { BackendContext } from '../bdev/context.ts';
import { Transfers } from '../bdev/transfers.ts';
import { CopyBatch } from '../io/copies.ts';
import { RegisteredFiles } from '../io/files.ts';
import { Ring } from '../io/ring.ts';
import { Timers } from '../io/timers.ts';
import { MAX_INFLIGHT } from '../limits.ts';
import { native } from '../native/index.ts';
import { IoEngine } from '../nvme/io.ts';
import type { IoQueue } from '../nvme/io-view.ts';
import type { CompletionQueue } from '../nvme/queue.ts';
import {
  AdminWord,
  type Message,
  NOT_WAITING,
  type ReactorTask,
  type Reply,
  Total,
  Word,
} from './control.ts';
import { Controllers } from './controllers.ts';

/** User data of the poll on the wake eventfd. Slots are above it, polls on sockets below. */
const WAKE = -1;
/** Poll rounds without work between two looks at the clock. */
const ROUNDS_PER_CLOCK = 64;
/** The shortest sleep worth its system call. Microseconds. */
const MIN_SLEEP_US = 20;
/** In place of the id of a `stop` message. */
const EXITING = 0;
/** While commands wait for the next slice of a rate limit. Microseconds. */
const PARKED_SLEEP_US = 500;
/** The longest wait for I/O that is soon to complete. Microseconds. */
const MAX_WAIT_US = 160;
/** A sleep lasts this fraction of the idle time before it. */
const SLEEP_FRACTION = 1 / 8;
/** Processor time that a reactor may use to look whether there is work, when it has had none for long: 0.6 % of a core. */
const IDLE_SHARE = 0.006;
/** Sleeps after which their cost is measured anew; and what is assumed before. */
const SLEEPS_PER_MEASUREMENT = 64;
const WAKE_COST_NS = 5000;
const UNBOUNDED = -1;
/** With I/O under way the kernel wakes us; and it may need this very processor to carry it out. */
const SPIN_WITH_IO_NS = 2000;
/** Rounds after which a host is interrupted that does not get on with what it was interrupted for before. */
const ROUNDS_PER_SIGNAL = 64;
/** Copies collected before they are run in any case. */
const COPY_BATCH = 1024;

/** Indexes into the reactor's private times (ns). */
const NOW = 0;
const IDLE_SINCE = 1;
const BUSY_SINCE = 2;
const IDLE_ACCOUNTED = 3;
/** Processor time of this thread: now, and when the sleeps were last counted from. */
const CPU_NOW = 4;
const CPU_BEFORE = 5;
/** What a sleep costs. */
const WAKE_COST = 6;

export class Reactor {
  readonly #task: ReactorTask;
  readonly #ring: Ring;
  readonly #engine: IoEngine;
  readonly #controllers: Controllers;
  readonly #words: Int32Array;
  readonly #shared: Float64Array;
  readonly #times = new Float64Array(new SharedArrayBuffer(7 * 8));
  readonly #clock = native.bindClock(this.#times);
  readonly #threadClock = native.bindThreadClock(this.#times);
  /** Queues to interrupt for at the end of the round. (An array that is emptied by its length is allocated anew.) */
  readonly #signals: CompletionQueue[] = [];
  #signalCount = 0;
  /** Queues that got a completion from the ring in this round. */
  readonly #touched: CompletionQueue[] = [];
  #touchedCount = 0;
  #messages = 0;
  #stopId = -1;
  /** Rounds without work, 0 after work. */
  #idleRounds = 0;
  /** Announced in the control block that it is about to sleep; and asked hosts to ring. */
  #announced = false;
  #armed = false;
  /** The next wait for I/O, in which no command is taken, in µs; and one has just ended. */
  #waitUs = MIN_SLEEP_US;
  #waited = false;
  /** Sleeps since the processor time was last read. */
  #sleeps = 0;
  /** Rounds in which an interrupt was held back. */
  #heldRounds = 0;

  constructor(task: ReactorTask) {
    this.#task = task;
    this.#words = new Int32Array(task.control);
    this.#shared = new Float64Array(task.control);
    // One SQE a command at most, one for the wake-up poll.
    this.#ring = new Ring(2 * MAX_INFLIGHT, task.workerCpus);
    const context: BackendContext = {
      reactor: task.index,
      ring: this.#ring,
      files: new RegisteredFiles(this.#ring),
      copies: new CopyBatch(COPY_BATCH),
      request: new Request(),
      transfers: new Transfers(),
      timers: new Timers(this.#ring),
      bounces: undefined,
    };
    this.#engine = new IoEngine(
      context,
      (failure) => this.#post({ kind: 'io-failed', failure }),
      (sq) => this.#touch(sq.cq),
    );
    this.#controllers = new Controllers(
      context,
      task.counters,
      (id, status) => this.#post({ kind: 'done', id, status }),
      (controller, drain) => this.#engine.inflight.drain(controller, drain),
    );
  }

  /** Returns when a `stop` message was carried out. If it throws, nothing of this reactor is under way in the kernel any more. */
  run(): void {
    try {
      this.#run();
    } finally {
      this.#endIo();
    }
  }

  /** Waits for the operations under way, whose buffers others may be about to reuse. Their commands are lost with the reactor. */
  #endIo(): void {
    this.#engine.inflight.hurry();
    while (this.#ring.inflight > 0) {
      this.#ring.wait(UNBOUNDED);
      const count = this.#ring.ready();
      for (let i = 0; i < count; i++) {
        if (this.#ring.userData(i) >= 0) {
          this.#ring.inflight -= 1;
        }
      }
      this.#ring.advance(count);
    }
  }

  #run(): void {
    this.#ring.preparePoll(this.#task.wakeFd, WAKE);
    this.#post({ kind: 'ready', ringFd: this.#ring.fd, tid: native.getTid() });
    this.#clock(NOW);
    this.#times[BUSY_SINCE] = this.#times[NOW];
    this.#times[WAKE_COST] = WAKE_COST_NS;
    while (this.#stopId < 0) {
      const work = this.#round();
      if (work > 0) {
        if (this.#idleRounds > 0) {
          this.#busyAgain();
        }
      } else {
        this.#idleRounds += 1;
        if (this.#idleRounds % ROUNDS_PER_CLOCK === 0 || this.#announced) {
          this.#idle();
        }
      }
    }
    this.#post({ kind: 'done', id: this.#stopId, status: 0 });
  }

  #post(reply: Reply): void {
    this.#task.port.postMessage(reply);
  }

  /** One turn over everything there is to look at. Returns how much there was to do. */
  #round(): number {
    let work = 0;
    if (this.#words[Word.MESSAGES] !== this.#messages) {
      this.#readMailbox(Atomics.load(this.#words, Word.MESSAGES));
      work += 1;
    }
    this.#engine.clock.begin();
    const polled = this.#controllers.polled;
    const before = work;
    for (let i = 0; i < polled.length; i++) {
      const queue = polled[i];
      const taken = this.#engine.poll(queue);
      if (taken > 0) {
        work += taken;
        this.#publish(queue.sq.cq);
      } else if (queue.sq.badTail || queue.sq.cq.badHead) {
        this.#reportDoorbells(queue);
      }
    }
    if (this.#waited) {
      this.#waited = false;
      this.#adaptWait(work > before);
    }
    if (this.#engine.parked > 0) {
      work += this.#release();
    }
    work += this.#pollRing();
    if (this.#controllers.draining) {
      this.#controllers.advance();
    }
    if (this.#signalCount > 0) {
      this.#signal();
    }
    return work + this.#watchAdmin();
  }

  /** Once a queue: a host can write nonsense faster than anyone can read about it. */
  #reportDoorbells({ sq, controller }: IoQueue): void {
    const { cq } = sq;
    if (sq.badTail && !sq.reportedTail) {
      sq.reportedTail = true;
      this.#post({ kind: 'bad-doorbell', controller: controller.id, qid: sq.qid });
    }
    if (cq.badHead && !cq.reportedHead) {
      cq.reportedHead = true;
      this.#post({ kind: 'bad-doorbell', controller: controller.id, qid: cq.qid });
    }
    sq.badTail = false;
    cq.badHead = false;
  }

  /** Commands that waited for a rate limit. */
  #release(): number {
    const released = this.#engine.release(this.#controllers.draining);
    this.#publishTouched();
    return released;
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
    this.#engine.clock.read();
    for (let i = 0; i < count; i++) {
      const slot = ring.userData(i);
      if (slot === WAKE) {
        native.eventfdRead(this.#task.wakeFd);
        if (!ring.more(i)) {
          ring.preparePoll(this.#task.wakeFd, WAKE);
        }
        continue;
      }
      if (slot < 0) {
        this.#controllers.heard(slot);
        continue;
      }
      ring.inflight -= 1;
      const sq = this.#engine.finish(slot, ring.result(i));
      if (sq !== undefined) {
        this.#touch(sq.cq);
      }
    }
    ring.advance(count);
    this.#publishTouched();
    return count;
  }

  #publishTouched(): void {
    for (let i = 0; i < this.#touchedCount; i++) {
      this.#touched[i].touched = false;
      this.#publish(this.#touched[i]);
    }
    this.#touchedCount = 0;
  }

  #touch(cq: CompletionQueue): void {
    if (!cq.touched) {
      cq.touched = true;
      this.#touched[this.#touchedCount++] = cq;
    }
  }

  /** Makes staged completions visible, and remembers to interrupt the host once for all of this round. */
  #publish(cq: CompletionQueue): void {
    if (cq.hasStaged) {
      cq.publish();
    }
    if (cq.needsSignal && !cq.signalQueued) {
      cq.signalQueued = true;
      this.#signals[this.#signalCount++] = cq;
    }
  }

  /** Interrupts the hosts that wait; those still busy with the last interrupt are looked at again in the next round. */
  #signal(): void {
    const held = this.#signalCount;
    this.#signalCount = 0;
    this.#heldRounds += 1;
    const late = this.#heldRounds >= ROUNDS_PER_SIGNAL;
    for (let i = 0; i < held; i++) {
      const cq = this.#signals[i];
      if (cq.needsSignal && !late && cq.hostBusy) {
        this.#signals[this.#signalCount++] = cq;
        continue;
      }
      cq.signalQueued = false;
      if (cq.needsSignal) {
        cq.signal();
        this.#shared[Total.INTERRUPTS] += 1;
      }
    }
    if (this.#signalCount === 0) {
      this.#heldRounds = 0;
    }
  }

  /**
   * The admin queue is main's; its doorbells lie in the same page as the others, so that only a poll can see them. Returns the number of
   * controllers that main was told about.
   */
  #watchAdmin(): number {
    const watches = this.#controllers.watches;
    let told = 0;
    for (let i = 0; i < watches.length; i++) {
      const { doorbells, seen, sent, controller } = watches[i];
      const head = seen[AdminWord.HEAD];
      if (
        doorbells[0] === seen[AdminWord.TAIL] &&
        (head === NOT_WAITING || doorbells[1] === head)
      ) {
        continue;
      }
      // Main may have taken a message of an earlier watch, too.
      const taken = Atomics.load(seen, AdminWord.TAKEN);
      if (((taken - sent) | 0) >= 0) {
        watches[i].sent = (taken + 1) | 0;
        told += 1;
        this.#post({ kind: 'admin', controller });
      }
    }
    return told;
  }

  #readMailbox(messages: number): void {
    // The word is raised after the message was posted, so all that it counts can be read.
    this.#messages = messages;
    if (Atomics.load(this.#words, Word.EXITING) === 1) {
      this.#stopId = EXITING;
      return;
    }
    for (;;) {
      const received = receiveMessageOnPort(this.#task.port);
      if (received === undefined) {
        break;
      }
      const { id, request }: Message = received.message;
      if (request.kind === 'stop') {
        this.#stopId = id;
      } else if (request.kind === 'report') {
        this.#accountTimes();
        this.#controllers.report(this.#engine.inflight.queues());
        this.#post({ kind: 'done', id, status: 0 });
      } else {
        this.#controllers.handle(id, request);
        if (request.kind === 'detach' || request.kind === 'unmap') {
          native.reclaim();
        }
      }
    }
  }

  #busyAgain(): void {
    if (this.#announced) {
      this.#announced = false;
      Atomics.store(this.#words, Word.SLEEPING, 0);
      if (this.#armed) {
        this.#armed = false;
        this.#controllers.hush();
      }
    }
    if (this.#times[IDLE_SINCE] > 0) {
      this.#clock(NOW);
      this.#accountIdle();
      this.#times[IDLE_SINCE] = 0;
      this.#times[BUSY_SINCE] = this.#times[NOW];
    }
    this.#idleRounds = 0;
    this.#sleeps = 0;
  }

  /** Adds the time since it was last added: a reactor that never rests would not. */
  #accountTimes(): void {
    const times = this.#times;
    this.#clock(NOW);
    if (times[IDLE_SINCE] > 0) {
      this.#accountIdle();
    } else {
      this.#shared[Total.BUSY] += times[NOW] - times[BUSY_SINCE];
      times[BUSY_SINCE] = times[NOW];
    }
  }

  /** Adds the time without work since it was last added. */
  #accountIdle(): void {
    this.#shared[Total.IDLE] += this.#times[NOW] - this.#times[IDLE_ACCOUNTED];
    this.#times[IDLE_ACCOUNTED] = this.#times[NOW];
  }

  /** Nothing to do for some rounds: spin on; or announce a sleep, ask hosts to ring, each time look once more, and sleep. */
  #idle(): void {
    const times = this.#times;
    this.#clock(NOW);
    if (times[IDLE_SINCE] === 0) {
      times[IDLE_SINCE] = times[NOW];
      times[IDLE_ACCOUNTED] = times[NOW];
      this.#shared[Total.BUSY] += times[NOW] - times[BUSY_SINCE];
    }
    this.#accountIdle();
    const idle = times[NOW] - times[IDLE_SINCE];
    const spin = this.#task.spinUs * 1000;
    if (idle < (this.#engine.inflight.count > 0 ? SPIN_WITH_IO_NS : spin)) {
      return;
    }
    if (!this.#announced) {
      // Main looks at this word after it wrote a doorbell or a message; the next round looks at those after this word is set.
      this.#announced = true;
      Atomics.store(this.#words, Word.SLEEPING, 1);
      Atomics.load(this.#words, Word.SLEEPING);
    } else if (idle < spin) {
      // The host may go on at any moment: a short sleep spares it the ringing.
      this.#waited = true;
      this.#sleep(this.#waitUs, 1 + (this.#engine.inflight.count >> 2));
    } else if (!this.#armed) {
      this.#armed = true;
      this.#controllers.arm();
      Atomics.load(this.#words, Word.SLEEPING);
    } else {
      const rest = this.#controllers.unheard ? this.#sleepUs(idle) : UNBOUNDED;
      this.#sleep(this.#engine.parked > 0 ? PARKED_SLEEP_US : rest);
    }
  }

  /** Whether commands came while the reactor waited for I/O: the less they do, the longer it may wait. */
  #adaptWait(commandsCame: boolean): void {
    this.#waitUs = commandsCame
      ? Math.max(MIN_SLEEP_US, this.#waitUs >> 2)
      : Math.min(MAX_WAIT_US, this.#waitUs << 1);
  }

  /** Microseconds to sleep after so many nanoseconds without work. */
  #sleepUs(idle: number): number {
    const affordable = this.#times[WAKE_COST] / IDLE_SHARE;
    const longest = Math.min(affordable / 1000, this.#task.maxSleepUs);
    return Math.max(MIN_SLEEP_US, Math.min((idle * SLEEP_FRACTION) / 1000, longest)) | 0;
  }

  #sleep(microseconds: number, completions = 1): void {
    if (this.#signalCount > 0) {
      this.#heldRounds = ROUNDS_PER_SIGNAL;
      this.#signal();
    }
    if (this.#sleeps === 0) {
      this.#threadClock(CPU_BEFORE);
    }
    this.#ring.wait(microseconds, completions);
    this.#shared[Total.SLEEPS] += 1;
    this.#sleeps += 1;
    if (this.#sleeps > SLEEPS_PER_MEASUREMENT) {
      this.#threadClock(CPU_NOW);
      this.#times[WAKE_COST] = (this.#times[CPU_NOW] - this.#times[CPU_BEFORE]) / this.#sleeps;
      this.#sleeps = 0;
    }
  }
}
