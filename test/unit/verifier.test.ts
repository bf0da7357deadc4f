/** What verification finds: blocks of another place, version or run, and single bits; and what it leaves alone. */
import t from 'tap';
import { compareBlock, describeMismatch, fillBlock } from '../../src/client/pattern.ts';
import { Verifier, VerifyError } from '../../src/client/verifier.ts';
import { Random } from '../helpers/random.ts';

const WORDS = 128;
const LBA = 2 ** 32 + 5;
const SEED = -77;

t.test('a block is its own, and no other', async (t) => {
  const random = new Random(3);
  const words = new Int32Array(2 * WORDS);
  fillBlock(words, WORDS, WORDS, LBA, 3, SEED);
  t.ok(
    words.subarray(0, WORDS).every((word) => word === 0),
    'only the block is written',
  );
  t.equal(compareBlock(words, WORDS, WORDS, LBA, 3, SEED), -1);
  t.equal(compareBlock(words, WORDS, WORDS, LBA + 1, 3, SEED), 0);
  t.equal(compareBlock(words, WORDS, WORDS, LBA + 2 ** 32, 3, SEED), 1);
  t.equal(compareBlock(words, WORDS, WORDS, LBA, 4, SEED), 2);
  t.equal(compareBlock(words, WORDS, WORDS, LBA, 3, 77), 3);
  for (let i = 0; i < 500; i++) {
    const [word, bit] = [random.below(WORDS), random.below(32)];
    words[WORDS + word] ^= 1 << bit;
    if (compareBlock(words, WORDS, WORDS, LBA, 3, SEED) !== word) {
      t.fail(`bit ${bit} of word ${word} went unseen`);
    }
    words[WORDS + word] ^= 1 << bit;
  }
  t.equal(compareBlock(words, WORDS, WORDS, LBA, 3, SEED), -1);
});

t.test('a mismatch is explained', async (t) => {
  const words = new Int32Array(WORDS);
  const explain = (lba: number, version: number, seed: number): string => {
    const index = compareBlock(words, 0, WORDS, lba, version, seed);
    return describeMismatch(words, 0, index, lba, version, seed);
  };
  fillBlock(words, 0, WORDS, LBA, 3, SEED);
  t.equal(explain(9, 4, SEED), `LBA 9 should hold version 4, and holds version 3 of LBA ${LBA}`);
  t.match(explain(LBA, 3, 1), /holds nothing that this run wrote/);
  words[100] ^= 1;
  t.match(explain(LBA, 3, SEED), /version 3, and differs from byte 400 on/);
});

t.test('the last version of each place is known', async (t) => {
  const range = { nsid: 1, places: 4, firstLba: 1000, lbas: 2, lbaBytes: 512 };
  const verifier = new Verifier(SEED, [range, { ...range, nsid: 2 }]);
  const words = new Int32Array(2 * WORDS);
  verifier.read(words, 0, 2);
  t.equal(verifier.checked, 0, 'what was not written is not compared');

  t.equal(verifier.claim(0, 2), 2);
  t.equal(verifier.claim(0, 2), 3, 'a place has one command');
  t.equal(verifier.claim(0, 2), 0, 'and the search goes round');
  t.equal(verifier.claim(1, 2), 2, 'in each namespace');
  verifier.fill(words, 0, 2);
  verifier.wrote(0, 2);
  t.equal(verifier.claim(0, 2), 2);
  verifier.read(words, 0, 2);
  t.equal(verifier.checked, 1);
  const old = words.slice();
  verifier.fill(words, 0, 2);
  verifier.wrote(0, 2);
  t.throws(
    () => verifier.read(old, 0, 2),
    new VerifyError('namespace 1: LBA 1004 should hold version 2, and holds version 1 of LBA 1004'),
  );
  words[WORDS + 7] ^= 4;
  t.throws(
    () => verifier.read(words, 0, 2),
    /LBA 1005 should hold version 2, and differs from byte 28/,
  );

  verifier.fill(words, 1, 0);
  verifier.wrote(1, 0);
  t.strictSame([verifier.sweep(), verifier.sweepPlace], [0, 2]);
  t.strictSame([verifier.sweep(), verifier.sweepPlace], [1, 0]);
  t.equal(verifier.sweep(), -1, 'all that was written, once');
});
