/**
 * What main and a reactor share: the words of the control block, and the messages between them.
 *
 * Control block: each word has one writer, named here. Messages go through a MessagePort; the sequence word tells a polling reactor that
 * one waits, and the wake eventfd ends its sleep.
 */

/** 32-bit words of the control block. */
export const Word = {
  /** Written by main: messages posted so far. */
  MESSAGES: 0,
  /** Written by the reactor: 1 while it sleeps or is about to, so that a doorbell written by main must wake it. */
  SLEEPING: 1,
  /** Written by main: 1 when the process ends and nobody waits for the reactor. */
  EXITING: 2,
} as const;

/** 64-bit floats of the control block, written by the reactor. */
export const Total = {
  /** Nanoseconds with and without work. */
  BUSY: 2,
  IDLE: 3,
  /** Waits in the kernel with nothing to do; interrupts of I/O queues. */
  SLEEPS: 4,
  INTERRUPTS: 5,
} as const;

export const CONTROL_BYTES = 4096;

/** What main hands to a reactor's thread at its start. */
export interface ReactorTask {
  readonly index: number;
  /** Processor to run on, or undefined to leave the choice to the kernel. */
  readonly cpu: number | undefined;
  /** Where the kernel may run I/O that blocks: a reactor that polls leaves no time for it on its own processor. */
  readonly workerCpus: readonly number[];
  /** Polling without work before the first sleep, and the longest sleep. Microseconds. */
  readonly spinUs: number;
  readonly maxSleepUs: number;
  readonly control: SharedArrayBuffer;
  readonly counters: SharedArrayBuffer;
  readonly wakeFd: number;
  readonly port: import('node:worker_threads').MessagePort;
}

/** What a plane and the part of main that it belongs to tell each other: of a controller, by its id. The plane knows the rest. */
export interface PlaneMessage {
  readonly kind: string;
  readonly controller: number;
}

/** What main asks of a reactor. */
export type Request =
  | { readonly kind: 'plane'; readonly message: PlaneMessage }
  /** Forget the shortest and the longest latency of a counter row. */
  | { readonly kind: 'clear-extremes'; readonly row: number }
  /** Write down how far everything is. */
  | { readonly kind: 'report' }
  | { readonly kind: 'stop' };

/** Main → reactor: a request, to be answered by `done` with the same id. */
export interface Message {
  readonly id: number;
  readonly request: Request;
}

/** Reactor → main. */
export type Reply =
  /** The reactor runs. `ringFd` is main's to close if the thread dies; `tid` is the thread's in the kernel. */
  | { readonly kind: 'ready'; readonly ringFd: number; readonly tid: number }
  /**
   * The reactor has died, and takes no more messages. Operations under way use memory of these owners, each until `left`, or until the thread
   * is over.
   */
  | { readonly kind: 'dying'; readonly message: string; readonly holders: readonly number[] }
  | { readonly kind: 'left'; readonly owner: number }
  /** A request was carried out, with this status. */
  | { readonly kind: 'done'; readonly id: number; readonly status: number }
  | { readonly kind: 'plane'; readonly message: PlaneMessage };
