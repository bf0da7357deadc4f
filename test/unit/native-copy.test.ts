/** The addon's copies: what is copied, how many, and what is refused. */
import t from 'tap';
import { native } from '../../src/native/index.ts';

const memory = new Uint8Array(native.mapAnonymous(1 << 20));
const base = native.addressOf(memory);
const list = new Float64Array(new SharedArrayBuffer(8 * 3 * 16));

for (const [name, copy] of [
  ['copyBatch', (count: number) => native.copyBatch(list, count)],
  ['bindCopyBatch', native.bindCopyBatch(list)],
] as const) {
  t.test(`${name} runs the first triples of the list`, async (t) => {
    memory.fill(0);
    for (let i = 0; i < 16; i++) {
      memory.fill(i + 1, i * 100, i * 100 + 100);
      list.set([base + 65536 + i * 200, base + i * 100, 100], i * 3);
    }
    copy(15);
    for (let i = 0; i < 15; i++) {
      t.ok(memory.subarray(65536 + i * 200, 65536 + i * 200 + 100).every((byte) => byte === i + 1));
      t.equal(memory[65536 + i * 200 + 100], 0);
    }
    t.equal(memory[65536 + 15 * 200], 0, 'the sixteenth was not asked for');
    copy(0);
    list[0] = base + 131072;
    copy(1);
    t.equal(memory[131072 + 99], 1, 'the list is read at each call');
  });

  t.test(`${name} survives pages that overlap`, async (t) => {
    for (let i = 0; i < 100; i++) memory[i] = i;
    list.set([base + 1, base, 99]);
    copy(1);
    t.same([memory[0], memory[1], memory[99]], [0, 0, 98]);
  });

  t.test(`${name} refuses a count the list does not hold`, async (t) => {
    memory[0] = 7;
    list.set([base + 500, base, 1]);
    for (const count of [
      17,
      2 ** 32 - 1,
      -1,
      'x' as unknown as number,
      undefined as unknown as number,
    ]) {
      t.throws(() => copy(count), { name: 'RangeError', code: 'ERR_OUT_OF_RANGE' }, `${count}`);
    }
    t.not(memory[500], 7, 'and copies nothing');
  });
}

t.test('lists of the wrong kind are refused', async (t) => {
  const type = { name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE' };
  for (const wrong of [
    new Uint8Array(24),
    [base, base, 1],
    new DataView(new ArrayBuffer(24)),
    undefined,
    5,
  ]) {
    t.throws(() => native.copyBatch(wrong as unknown as Float64Array, 1), type);
    t.throws(() => native.bindCopyBatch(wrong as unknown as Float64Array), type);
  }
  t.throws(
    () => native.bindCopyBatch(new Float64Array(3)),
    type,
    'its buffer could be transferred away',
  );
  t.throws(() => native.copyBatch(new Float64Array(2), 1), { code: 'ERR_OUT_OF_RANGE' });
});

t.test('bindCompareBatch compares the first triples of the list', async (t) => {
  const equal = native.bindCompareBatch(list);
  memory.fill(0);
  list.set([base, base + 4096, 100, base + 200, base + 8192, 1]);
  t.equal(equal(2), true);
  t.equal(equal(0), true);
  memory[99] = 1;
  t.equal(equal(2), false, 'the last byte of the first');
  memory[99] = 0;
  memory[8192] = 1;
  t.equal(equal(2), false, 'the second');
  t.equal(equal(1), true, 'which was not asked for');
  memory[100] = 1;
  t.equal(equal(1), true, 'behind it');
  t.throws(() => equal(17), { name: 'RangeError', code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => native.bindCompareBatch(new Float64Array(3)), { code: 'ERR_INVALID_ARG_TYPE' });
});

t.test('bindZeroMemory zeroes its range alone, and gives whole pages back', async (t) => {
  const bytes = 4 * 1024 * 1024;
  const disk = new Uint8Array(native.mapAnonymous(bytes, true));
  const start = native.addressOf(disk);
  const range = new Float64Array(new SharedArrayBuffer(24));
  const zero = native.bindZeroMemory(range);
  for (const [offset, length] of [
    [0, bytes],
    [1, 1],
    [4095, 2],
    [100, 3000],
    [4096, 4096],
    [5000, 100_000],
    [bytes - 5000, 5000],
    [777, 0],
  ]) {
    disk.fill(0xff);
    range.set([start + offset, length]);
    zero();
    const expected = new Uint8Array(bytes).fill(0xff).fill(0, offset, offset + length);
    t.ok(Buffer.from(disk.buffer).equals(expected), `${length} bytes at ${offset}`);
  }
  disk.fill(0xff);
  const full = process.memoryUsage.rss();
  range.set([start, bytes]);
  zero();
  t.ok(full - process.memoryUsage.rss() > bytes / 2, 'the process has less memory');
  t.throws(() => native.bindZeroMemory(new Float64Array(new SharedArrayBuffer(16))), {
    code: 'ERR_OUT_OF_RANGE',
  });
});

t.test('a bound list lives as long as its function', async (t) => {
  const { setFlagsFromString } = await import('node:v8');
  const { runInNewContext } = await import('node:vm');
  setFlagsFromString('--expose-gc');
  const collect: () => void = runInNewContext('gc');
  const bind = () => {
    const own = new Float64Array(new SharedArrayBuffer(8 * 3 * 1000));
    own.set([base + 700, base + 600, 1]);
    return native.bindCopyBatch(own);
  };
  const copies = Array.from({ length: 100 }, bind);
  collect();
  collect();
  memory[600] = 9;
  for (const copy of copies) {
    memory[700] = 0;
    copy(1);
    t.equal(memory[700], 9);
  }
});
