/** Ranges of blocks, as commands have them. */

const TWO_32 = 0x1_0000_0000;

/** Whether `blocks` from a block on, whose number comes in two halves, lie within the namespace. No bdev has 2^53 blocks. */
export function isInRange(
  lbaLo: number,
  lbaHi: number,
  blocks: number,
  numBlocks: number,
): boolean {
  const lba = (lbaHi >>> 0) * TWO_32 + (lbaLo >>> 0);
  return lbaHi >>> 0 < 0x20_0000 && lba + blocks <= numBlocks;
}
