/** What the target needs of the reactors. */
import type { Tally } from '../bdev/tally.ts';

export interface Reactors {
  readonly count: number;
  /** Processor of each reactor. */
  readonly cores: readonly number[];
  /** What a reactor did on a bdev since the statistics were last reset; and ever. */
  iostat(bdevIndex: number, reactor: number): Tally;
  bdevTally(bdevIndex: number, reactor: number): Tally;
  resetIostat(bdevIndex: number, what: 'all' | 'error' | 'maxmin'): void;
  /** The bdev is gone: its index may be another's next. */
  forgetBdev(bdevIndex: number): void;
  state(reactor: number): ReactorState;
  /** Controllers that there were, with those that there are. */
  readonly controllersSeen: number;
  /** Has every reactor write down how far its queues are. Resolves when they have, or soon in any case. */
  report(): Promise<void>;
  /** `listener` is told of each reactor that dies. */
  onLost(listener: (reactor: number, message: string) => void): void;
}

/** What a reactor tells of itself. Counted since it started; a dead one's successor starts anew. */
export interface ReactorState {
  readonly alive: boolean;
  /** Time with and without work, in ns. */
  readonly busy: number;
  readonly idle: number;
  /** Times it went to sleep in the kernel. */
  readonly sleeps: number;
  /** Eventfds it signalled: interrupts of guests. */
  readonly interrupts: number;
  /** Of its thread, in the kernel; 0 if it is dead. */
  readonly tid: number;
  /** I/O queue pairs made there, those of dead threads too. */
  readonly queuePairs: number;
}
