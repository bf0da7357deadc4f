/** The other side of `echo.ts`: a thread that posts a completion for each command, and does nothing else. */
import { parentPort, workerData } from 'node:worker_threads';
import { native } from '../src/native/index.ts';
import { CompletionQueue, SQE_WORDS, SubmissionQueue } from '../src/nvme/queue.ts';

export interface EchoShared {
  readonly sq: SharedArrayBuffer;
  readonly cq: SharedArrayBuffer;
  readonly doorbells: SharedArrayBuffer;
  readonly stop: SharedArrayBuffer;
  readonly depth: number;
  readonly cpu: number;
}

function echo(shared: EchoShared): void {
  const doorbells = new Int32Array(shared.doorbells);
  const stop = new Int32Array(shared.stop);
  const cq = new CompletionQueue(1, shared.depth, new Int32Array(shared.cq), doorbells, false, 0);
  const sq = new SubmissionQueue(1, shared.depth, new Int32Array(shared.sq), doorbells, cq);
  while (stop[0] === 0) {
    const tail = sq.tail();
    const room = Math.min(64, cq.room(64));
    let taken = 0;
    while (sq.head !== tail && taken < room) {
      const cid = sq.words[sq.head * SQE_WORDS] >>> 16;
      sq.head = sq.head + 1 === sq.size ? 0 : sq.head + 1;
      cq.stage(0, 1, sq.head, cid, 0);
      taken += 1;
    }
    if (taken > 0) {
      cq.publish();
    }
  }
}

native.setAffinity([workerData.cpu]);
parentPort?.postMessage('ready');
echo(workerData);
