/**
 * Where reactors run: one worker thread each, which is a piscina task that does not end. Handed to the pool, so that reactors can also be
 * run where there are no threads. Owned by main.
 */
import { closeSync } from 'node:fs';
import { MessageChannel } from 'node:worker_threads';
import { Piscina } from 'piscina';
import { native } from '../native/index.ts';
import type { Message, ReactorTask, Reply } from './control.ts';

/** What a reactor is started with, but for its port. */
export type ReactorStart = Omit<ReactorTask, 'port'>;

/** The thread of one reactor, from its start to its end. */
export interface ReactorThread {
  post(message: Message): void;
  /** Resolves when the reactor was told to stop, and rejects when it died. Nothing of it is under way in the kernel any more. */
  readonly over: Promise<void>;
  /** Nothing more is sent or received. */
  close(): void;
}

/** What the pool needs of the world. */
export interface ReactorThreads {
  /** Processors on which the kernel may carry out I/O that blocks. */
  readonly workerCpus: readonly number[];
  /** `receive` gets what the reactor sends. */
  start(start: ReactorStart, receive: (reply: Reply) => void): ReactorThread;
  /** Ends all threads, when their reactors are over. */
  destroy(): Promise<void>;
  /** Zeroed memory that main and reactors share. `length`: a multiple of the page size. */
  mapAnonymous(length: number): SharedArrayBuffer;
  eventfdCreate(): number;
  eventfdSignal(fd: number): void;
  close(fd: number): void;
}

/**
 * `node --input-type=module -e …`: how a program was given to Node is not how a reactor is, and a thread with that option does not start. In
 * all other cases a thread has the options of the process by itself; those of V8 could not even be handed on.
 */
const isForProgramText = (option: string): boolean => option.startsWith('--input-type');

/** `count`: reactors that run at a time. */
export function workerThreads(count: number): ReactorThreads {
  const piscina = new Piscina({
    filename: new URL('../../workers/reactor.js', import.meta.url).href,
    minThreads: count,
    // One that has died may keep its thread until its operations are over.
    maxThreads: 2 * count,
    concurrentTasksPerWorker: 1,
    idleTimeout: Number.POSITIVE_INFINITY,
    atomics: 'disabled',
    recordTiming: false,
    // Reactors only borrow main's descriptors.
    trackUnmanagedFds: false,
    ...(process.execArgv.some(isForProgramText) && { execArgv: [] }),
  });
  return {
    workerCpus: native.getAffinity(),
    start(start, receive) {
      const { port1, port2 } = new MessageChannel();
      port1.on('message', receive);
      const task: ReactorTask = { ...start, port: port2 };
      return {
        post: (message) => port1.postMessage(message),
        over: piscina.run(task, { transferList: [port2] }),
        close: () => port1.close(),
      };
    },
    destroy: () => piscina.destroy(),
    mapAnonymous: (length) => native.mapAnonymous(length),
    eventfdCreate: () => native.eventfdCreate(),
    eventfdSignal: (fd) => native.eventfdSignal(fd),
    close: closeSync,
  };
}
