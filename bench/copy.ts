/**
 * `node dist/bench/copy.js '{"bytes":4096,…}'`: the yardstick for the RAM bdev. The copies that its load makes, in batches, and nothing
 * else. Prints JSON.
 */
import { native } from '../src/native/index.ts';

export interface CopyOptions {
  /** Of a piece, and of the memory that the pieces come from. */
  readonly bytes: number;
  readonly from: number;
  /** Pieces a batch: as many as there would be commands in flight. */
  readonly batch: number;
  readonly random: boolean;
  readonly seconds: number;
  readonly cpu: number;
}

export interface CopyReport {
  /** Pieces a second. */
  readonly iops: number;
}

const options: CopyOptions = JSON.parse(process.argv[2]);
const { bytes, batch } = options;
native.setAffinity([options.cpu]);
const source = new Uint8Array(native.mapAnonymous(options.from, true));
source.fill(1);
const target = new Uint8Array(native.mapAnonymous(bytes * batch));
target.fill(2);
const from = native.addressOf(source);
const to = native.addressOf(target);
const list = new Float64Array(new SharedArrayBuffer(batch * 3 * 8));
const copy = native.bindCopyBatch(list);
const time = new Float64Array(new SharedArrayBuffer(8));
const readClock = native.bindClock(time);
const places = Math.floor(options.from / bytes);

/** Returns pieces a second. */
function run(seconds: number): number {
  let bits = 1;
  let place = 0;
  let done = 0;
  readClock();
  const start = time[0];
  const end = start + seconds * 1e9;
  while (time[0] < end) {
    for (let i = 0; i < batch; i++) {
      bits ^= bits << 13;
      bits ^= bits >>> 17;
      bits ^= bits << 5;
      place = options.random ? (bits >>> 1) % places : place + 1 === places ? 0 : place + 1;
      list[3 * i] = to + i * bytes;
      list[3 * i + 1] = from + place * bytes;
      list[3 * i + 2] = bytes;
    }
    copy(batch);
    done += batch;
    readClock();
  }
  return done / ((time[0] - start) / 1e9);
}

run(0.2);
const iops = run(options.seconds);
// The memory must outlive the addresses taken of it.
if (source[0] !== target[0]) {
  throw new Error('the copy did not copy');
}
process.stdout.write(`${JSON.stringify({ iops } satisfies CopyReport)}\n`);
