/** Bit fields of a number: what is declared, read and written. */
import t from 'tap';
import { bits, flag, word } from '../../src/util/bits.ts';

const Sample = word('Sample', { on: flag(0), kind: bits(1, 3), top: flag(31), size: bits(8, 16) });

t.test('fields are read and written, the top bit among them', async (t) => {
  const value = Sample.encode({ on: true, kind: 5, top: true, size: 0xabcd });
  t.equal(value, 0x80ab_cd0b, 'unsigned');
  t.strictSame(Sample.decode(value), { on: true, kind: 5, top: true, size: 0xabcd });
  t.strictSame(Sample.decode(value | 0), Sample.decode(value), 'a signed number is the same bits');
  t.strictSame(Sample.decode(0), { on: false, kind: 0, top: false, size: 0 });
});

t.test('bits that no field has stay as they are', async (t) => {
  t.equal(Sample.replace(0xffff_ffff, { kind: 0, size: 0 }), 0xff00_00f1);
  t.equal(Sample.encode({}), 0);
});

t.test('masks are what & takes', async (t) => {
  t.strictSame(Sample.mask, { on: 1, kind: 0xe, top: 1 << 31, size: 0xff_ff00 });
  t.equal(word('Whole', { all: bits(0, 32) }).mask.all, -1);
  t.strictSame(word('Whole', { all: bits(0, 32) }).decode(-1), { all: 0xffff_ffff });
});

t.test('declarations and values that do not fit are refused', async (t) => {
  t.throws(() => word('W', { a: bits(0, 4), b: flag(3) }), /W\.b overlaps/);
  t.throws(() => word('W', { a: bits(20, 13) }), /not within 32 bits/);
  t.throws(() => word('W', { a: bits(-1, 2) }), /not within 32 bits/);
  for (const kind of [8, -1, 0.5, Number.NaN]) {
    t.throws(() => Sample.encode({ kind }), /Sample\.kind/, `${kind}`);
  }
});
