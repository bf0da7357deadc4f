/**
 * What verification writes, so that a read shows which write it sees: every logical block begins with its address, the version of its
 * data and the seed of the run; the rest are words that follow from these.
 */

const TWO_32 = 2 ** 32;
/** Words of a block before those that are derived. */
const HEAD = 4;

/** xorshift32 never leaves 0, and never gets there. */
function firstWord(lbaLow: number, version: number, seed: number): number {
  const mixed = Math.imul(lbaLow ^ seed, 0x9e37_79b1) ^ Math.imul(version, 0x85eb_ca77);
  return mixed === 0 ? 1 : mixed;
}

/** Hot. Fills the `length` words at `at` with a block. */
export function fillBlock(
  words: Int32Array,
  at: number,
  length: number,
  lba: number,
  version: number,
  seed: number,
): void {
  words[at] = lba | 0;
  words[at + 1] = (lba / TWO_32) | 0;
  words[at + 2] = version;
  words[at + 3] = seed;
  let word = firstWord(lba | 0, version, seed);
  for (let i = at + HEAD; i < at + length; i++) {
    word ^= word << 13;
    word ^= word >>> 17;
    word ^= word << 5;
    words[i] = word;
  }
}

/** Hot. The index of the first word that is not the block's, counted from `at`; -1 if all are. */
export function compareBlock(
  words: Int32Array,
  at: number,
  length: number,
  lba: number,
  version: number,
  seed: number,
): number {
  if (words[at] !== (lba | 0)) return 0;
  if (words[at + 1] !== ((lba / TWO_32) | 0)) return 1;
  if (words[at + 2] !== (version | 0)) return 2;
  if (words[at + 3] !== seed) return 3;
  let word = firstWord(lba | 0, version, seed);
  for (let i = at + HEAD; i < at + length; i++) {
    word ^= word << 13;
    word ^= word >>> 17;
    word ^= word << 5;
    if (words[i] !== word) return i - at;
  }
  return -1;
}

/** In words: what a block should be that is not, and what it says it is. */
export function describeMismatch(
  words: Int32Array,
  at: number,
  index: number,
  lba: number,
  version: number,
  seed: number,
): string {
  const expected = `LBA ${lba} should hold version ${version}`;
  if (words[at + 3] !== seed) {
    return `${expected}, and holds nothing that this run wrote`;
  }
  const [lbaThere, versionThere] = [
    (words[at] >>> 0) + (words[at + 1] >>> 0) * TWO_32,
    words[at + 2] >>> 0,
  ];
  return index >= HEAD
    ? `${expected}, and differs from byte ${4 * index} on`
    : `${expected}, and holds version ${versionThere} of LBA ${lbaThere}`;
}
