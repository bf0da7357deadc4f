import t from 'tap';
import {
  bytes,
  networkStruct,
  readU64,
  struct,
  u8,
  u16,
  u32,
  u64,
  writeU64,
} from '../../src/util/struct.ts';

const Sample = struct('Sample', 24, {
  a: u8(0),
  b: u16(2),
  c: u32(4),
  d: u64(8),
  e: bytes(16, 4),
});

t.test('a structure is written and read field by field, little endian', async (t) => {
  const raw = Sample.encode({
    a: 1,
    b: 0x0302,
    c: 0x07060504,
    d: 0x0d0c0b0a0908,
    e: Uint8Array.of(9),
  });
  t.same([...raw], [1, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
  const values = Sample.read(new DataView(raw.buffer));
  t.equal(values.a, 1);
  t.equal(values.b, 0x0302);
  t.equal(values.c, 0x07060504);
  t.equal(values.d, 0x0d0c0b0a0908);
  t.same([...values.e], [9, 0, 0, 0]);
});

t.test('the order of the network', async (t) => {
  const Network = networkStruct('Network', 14, { a: u16(0), b: u32(2), c: u64(6) });
  const raw = Network.encode({ a: 0x0102, b: 0x0304_0506, c: 0x0708_090a_0b0c });
  t.same([...raw], [1, 2, 3, 4, 5, 6, 0, 0, 7, 8, 9, 10, 11, 12]);
  const values = Network.read(new DataView(raw.buffer));
  t.same(values, { a: 0x0102, b: 0x0304_0506, c: 0x0708_090a_0b0c });
});

t.test('fields not named keep their value', async (t) => {
  const raw = Sample.encode({ a: 7, c: 9 });
  Sample.write(new DataView(raw.buffer), 0, { c: 10 });
  t.equal(raw[0], 7);
  t.equal(raw[4], 10);
});

t.test('declarations and values that do not fit are refused', async (t) => {
  t.throws(() => struct('Short', 4, { a: u32(1) }), /ends past/);
  t.throws(() => Sample.word('b'), /not 4-byte aligned/);
  t.equal(Sample.word('c'), 1);
  t.throws(() => Sample.encode({ e: new Uint8Array(5) }), /do not fit/);
});

t.test('64-bit integers are exact to 2^53, and larger ones stay larger', async (t) => {
  const view = new DataView(new ArrayBuffer(8));
  for (const value of [0, 1, 0xffff_ffff, 0x1_0000_0000, Number.MAX_SAFE_INTEGER]) {
    writeU64(view, 0, value);
    t.equal(view.getBigUint64(0, true), BigInt(value));
    t.equal(readU64(view, 0), value);
  }
  view.setBigUint64(0, 0xffff_ffff_ffff_ffffn, true);
  t.ok(readU64(view, 0) > Number.MAX_SAFE_INTEGER);
});
