/**
 * What a reactor needs of the world: the system, a ring, its mailbox. Handed in, so that a reactor can also be run where time and
 * devices are made up.
 */
import { receiveMessageOnPort } from 'node:worker_threads';
import { Ring } from '../io/ring.ts';
import { MAX_INFLIGHT, MAX_KERNEL_WORKERS } from '../limits.ts';
import { native } from '../native/index.ts';
import type { System } from '../native/system.ts';
import type { Message, ReactorTask, Reply } from './control.ts';

export interface Platform {
  readonly system: System;
  readonly ring: Ring;
  /** Kernel id of the thread. */
  readonly tid: number;
  /** The next message of main, if there is one. */
  receive(): Message | undefined;
  post(reply: Reply): void;
  /** Clears the reactor's own eventfd. */
  readWake(): void;
  /** Gives back addresses of mappings that were taken away. */
  reclaim(): void;
}

export function realPlatform(task: ReactorTask): Platform {
  // One SQE a request at most, one for the wake-up poll.
  const ring = new Ring(2 * MAX_INFLIGHT, task.workerCpus, MAX_KERNEL_WORKERS, native);
  return {
    system: native,
    ring,
    tid: native.getTid(),
    receive: () => receiveMessageOnPort(task.port)?.message,
    post: (reply) => task.port.postMessage(reply),
    readWake: () => native.eventfdRead(task.wakeFd),
    reclaim: () => native.reclaim(),
  };
}
