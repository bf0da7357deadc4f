/**
 * When a reactor without work rests, and for how long.
 *
 * Idle, it polls on for `spinUs`, then sleeps in io_uring, woken by a completion or by main's eventfd. A client that maps the doorbells
 * writes them without telling anyone; for its sake a sleep lasts a fraction of the time that was idle so far, so that no command waits
 * much longer than the host has; and, once long idle, as long as keeps the cost of waking up under IDLE_SHARE. Where every doorbell that
 * matters is heard (trapped, or shadowed and trapped), it sleeps until there is something to do.
 */
import { Total, Word } from './control.ts';

/** The shortest sleep worth its system call. Microseconds. */
const MIN_SLEEP_US = 20;
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
/**
 * I/O that needs no processor is polled for as long as it usually takes, and a little more: to be woken takes as long as a fast disk itself.
 * What is assumed before it is known, and how much each wait that was counts. Nanoseconds.
 */
const QUICK_IO_NS = 50_000;
const QUICK_MARGIN = 1.5;
const LEARNING = 1 / 8;
/** Poll rounds without work between two looks at the clock. */
const ROUNDS_PER_CLOCK = 64;

/** Indexes into the private times (ns). */
const NOW = 0;
const IDLE_SINCE = 1;
const BUSY_SINCE = 2;
const IDLE_ACCOUNTED = 3;
/** Processor time of this thread: now, and when the sleeps were last counted from. */
const CPU_NOW = 4;
const CPU_BEFORE = 5;
/** What a sleep costs. */
const WAKE_COST = 6;
/** How long I/O that needs no processor was waited for, on average. */
const QUICK_WAIT = 7;
const TIMES = 8;

export interface RestOptions {
  /** Polling without work before the first sleep, and the longest sleep. Microseconds. */
  readonly spinUs: number;
  readonly maxSleepUs: number;
  readonly control: SharedArrayBuffer;
}

/** What rests. */
export interface Sleeper {
  /** Requests in flight, for whose completion the kernel wakes it. */
  readonly inflight: number;
  /** Requests are in flight, and end soon by interrupts. */
  readonly quick: boolean;
  /** Hosts submit without a word. */
  readonly unheard: boolean;
  /** When requests may go, or interrupts come, that wait for time to pass, in ns of the clock; Infinity if there are none. */
  readonly due: number;
  arm(): void;
  hush(): void;
  /** Sleeps until `completions` operations are over; < 0: without a bound in time. */
  sleep(microseconds: number, completions: number): void;
}

export interface Clocks {
  bindClock(times: Float64Array): (index?: number) => void;
  bindThreadClock(times: Float64Array): (index?: number) => void;
}

export class Rest {
  readonly #options: RestOptions;
  readonly #sleeper: Sleeper;
  readonly #words: Int32Array;
  readonly #totals: Float64Array;
  readonly #times = new Float64Array(new SharedArrayBuffer(TIMES * 8));
  readonly #clock: (index?: number) => void;
  readonly #threadClock: (index?: number) => void;
  /** Rounds without work, 0 after work. */
  #idleRounds = 0;
  /** Announced in the control block that it is about to sleep; and asked hosts to ring. */
  #announced = false;
  #armed = false;
  /** The next wait for I/O, in which no command is taken, in µs; and one has just ended. */
  #waitUs = MIN_SLEEP_US;
  #waited = false;
  /** What it waits for now is quick I/O. */
  #quick = false;
  /** Sleeps since the processor time was last read. */
  #sleeps = 0;

  constructor(options: RestOptions, sleeper: Sleeper, clocks: Clocks) {
    this.#options = options;
    this.#sleeper = sleeper;
    this.#words = new Int32Array(options.control);
    this.#totals = new Float64Array(options.control);
    this.#clock = clocks.bindClock(this.#times);
    this.#threadClock = clocks.bindThreadClock(this.#times);
    this.#clock(NOW);
    this.#times[BUSY_SINCE] = this.#times[NOW];
    this.#times[WAKE_COST] = WAKE_COST_NS;
    this.#times[QUICK_WAIT] = QUICK_IO_NS;
  }

  /** Hosts were polled: whether commands came while the reactor waited for I/O. The less they do, the longer it may wait. */
  polled(commandsCame: boolean): void {
    if (this.#waited) {
      this.#waited = false;
      this.#waitUs = commandsCame
        ? Math.max(MIN_SLEEP_US, this.#waitUs >> 2)
        : Math.min(MAX_WAIT_US, this.#waitUs << 1);
    }
  }

  /** A round had something to do. */
  busy(): void {
    if (this.#idleRounds === 0) {
      return;
    }
    if (this.#announced) {
      this.#announced = false;
      Atomics.store(this.#words, Word.SLEEPING, 0);
      if (this.#armed) {
        this.#armed = false;
        this.#sleeper.hush();
      }
    }
    if (this.#times[IDLE_SINCE] > 0) {
      this.#clock(NOW);
      this.#accountIdle();
      if (this.#quick) {
        const waited = this.#times[NOW] - this.#times[IDLE_SINCE];
        this.#times[QUICK_WAIT] += (waited - this.#times[QUICK_WAIT]) * LEARNING;
      }
      this.#times[IDLE_SINCE] = 0;
      this.#times[BUSY_SINCE] = this.#times[NOW];
    }
    this.#idleRounds = 0;
    this.#sleeps = 0;
  }

  /** A round had nothing to do. */
  idle(): void {
    this.#idleRounds += 1;
    if (this.#idleRounds % ROUNDS_PER_CLOCK === 0 || this.#announced) {
      this.#rest();
    }
  }

  /** Adds the time since it was last added: a reactor that never rests would not. */
  account(): void {
    const times = this.#times;
    this.#clock(NOW);
    if (times[IDLE_SINCE] > 0) {
      this.#accountIdle();
    } else {
      this.#totals[Total.BUSY] += times[NOW] - times[BUSY_SINCE];
      times[BUSY_SINCE] = times[NOW];
    }
  }

  /** Adds the time without work since it was last added. */
  #accountIdle(): void {
    this.#totals[Total.IDLE] += this.#times[NOW] - this.#times[IDLE_ACCOUNTED];
    this.#times[IDLE_ACCOUNTED] = this.#times[NOW];
  }

  /** Nothing to do for some rounds: spin on; or announce a sleep, ask hosts to ring, each time look once more, and sleep. */
  #rest(): void {
    const times = this.#times;
    const sleeper = this.#sleeper;
    this.#clock(NOW);
    if (times[IDLE_SINCE] === 0) {
      times[IDLE_SINCE] = times[NOW];
      times[IDLE_ACCOUNTED] = times[NOW];
      this.#totals[Total.BUSY] += times[NOW] - times[BUSY_SINCE];
      this.#quick = sleeper.quick;
    }
    this.#accountIdle();
    const idle = times[NOW] - times[IDLE_SINCE];
    const spin = this.#options.spinUs * 1000;
    if (idle < (sleeper.inflight > 0 ? this.#spinWithIo(spin) : spin)) {
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
      this.#sleep(this.#waitUs, 1 + (sleeper.inflight >> 2));
    } else if (!this.#armed) {
      this.#armed = true;
      sleeper.arm();
      Atomics.load(this.#words, Word.SLEEPING);
    } else {
      const rest = sleeper.unheard ? this.#sleepUs(idle) : UNBOUNDED;
      this.#sleep(this.#untilDue(rest), 1);
    }
  }

  /** `most`: what polling without work may take. Of a disk that usually takes longer there is none: it would be in vain. Nanoseconds. */
  #spinWithIo(most: number): number {
    const wait = this.#times[QUICK_WAIT];
    return this.#quick && wait <= most ? Math.min(most, wait * QUICK_MARGIN) : SPIN_WITH_IO_NS;
  }

  /** So many microseconds (< 0: without bound), but no longer than until something is due. */
  #untilDue(microseconds: number): number {
    const left = Math.ceil((this.#sleeper.due - this.#times[NOW]) / 1000);
    if (left === Number.POSITIVE_INFINITY) {
      return microseconds;
    }
    const bounded = Math.max(MIN_SLEEP_US, left);
    return microseconds < 0 ? bounded : Math.min(microseconds, bounded);
  }

  /** Microseconds to sleep after so many nanoseconds without work. */
  #sleepUs(idle: number): number {
    const affordable = this.#times[WAKE_COST] / IDLE_SHARE;
    const longest = Math.min(affordable / 1000, this.#options.maxSleepUs);
    return Math.max(MIN_SLEEP_US, Math.min((idle * SLEEP_FRACTION) / 1000, longest)) | 0;
  }

  #sleep(microseconds: number, completions: number): void {
    if (this.#sleeps === 0) {
      this.#threadClock(CPU_BEFORE);
    }
    this.#sleeper.sleep(microseconds, completions);
    this.#totals[Total.SLEEPS] += 1;
    this.#sleeps += 1;
    if (this.#sleeps > SLEEPS_PER_MEASUREMENT) {
      this.#threadClock(CPU_NOW);
      this.#times[WAKE_COST] = (this.#times[CPU_NOW] - this.#times[CPU_BEFORE]) / this.#sleeps;
      this.#sleeps = 0;
    }
  }
}
