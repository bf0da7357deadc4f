/** Data of admin commands ↔ guest memory, through a scratch mapping whose address is known. Owned by main. */
import { CopyBatch } from '../../io/copies.ts';
import { MAX_SEGMENTS, MAX_TRANSFER_BYTES } from '../../limits.ts';
import type { Segments } from '../../memory/segments.ts';
import { native } from '../../native/index.ts';

/** Resident only as far as it was ever used. */
const scratch = new Uint8Array(native.mapAnonymous(MAX_TRANSFER_BYTES));
const scratchAddress = Float64Array.of(native.addressOf(scratch));
const copies = new CopyBatch(MAX_SEGMENTS, native);

/** Copies `data` into a scatter list that `mapPrps` made for exactly its length, of memory that the device may write. */
export function sendToGuest(data: Uint8Array, segments: Segments): void {
  scratch.set(data);
  let done = 0;
  for (let i = 0; i < segments.count; i++) {
    copies.push(segments.address, i, 0, scratchAddress, 0, done, segments.length[i]);
    done += segments.length[i];
  }
  copies.flush();
}

/** The bytes of a scatter list that `mapPrps` made for exactly that length. */
export function receiveFromGuest(length: number, segments: Segments): Uint8Array {
  let done = 0;
  for (let i = 0; i < segments.count; i++) {
    copies.push(scratchAddress, 0, done, segments.address, i, 0, segments.length[i]);
    done += segments.length[i];
  }
  copies.flush();
  return scratch.slice(0, length);
}
