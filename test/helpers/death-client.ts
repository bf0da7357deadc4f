/**
 * A guest to be killed: writes ever larger numbers to its blocks, as many at a time as its queue holds, and tells which writes were
 * completed. Arguments: socket, first number.
 */
import { NvmeClient } from '../../src/client/nvme.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';

/** Blocks of 4096 bytes that it writes to. */
export const BLOCKS = 64;
const WORDS = 1024;
const LBAS = 8;

/** Numbers whose write was completed, by block. */
export type Progress = readonly number[];

async function run(socket: string, firstNumber: number): Promise<void> {
  const client = await NvmeClient.connect(socket, { memoryBytes: 1024 * 1024 });
  const pair = await client.createQueuePair(1, BLOCKS + 1);
  const buffer = client.memory.allocate(BLOCKS * 4096);
  const words = new Int32Array(client.memory.buffer, buffer, BLOCKS * WORDS);
  const started = new Array<number>(BLOCKS).fill(firstNumber);
  const completed = new Array<number>(BLOCKS).fill(0);
  const submit = (block: number): void => {
    started[block] += 1;
    words.fill(started[block], WORDS * block, WORDS * (block + 1));
    pair.push(block, NvmOpcode.WRITE, 1, LBAS * block, LBAS - 1);
  };
  for (let block = 0; block < BLOCKS; block++) {
    pair.setBuffer(block, client.memory.iova + buffer + 4096 * block, 0);
    submit(block);
  }
  pair.ring();
  const turn = (): void => {
    const count = pair.poll();
    for (let i = 0; i < count; i++) {
      if (pair.doneStatus[i] !== 0) {
        throw new Error(`status ${pair.doneStatus[i].toString(16)}`);
      }
      completed[pair.doneIds[i]] = started[pair.doneIds[i]];
      submit(pair.doneIds[i]);
    }
    if (count > 0) {
      pair.ring();
      process.send?.(completed);
    }
    setImmediate(turn);
  };
  turn();
}

const [socket, first] = process.argv.slice(2);
if (socket !== undefined && first !== undefined) {
  process.on('disconnect', () => process.exit(0));
  await run(socket, Number(first));
}
