/** The PRP walker against a plain reading of the specification, over memory full of PRP entries. NVMe Base 2.0 §4.1.1. */
import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import fc from 'fast-check';
import t from 'tap';
import { MAX_SEGMENTS, MAX_TRANSFER_BYTES } from '../../src/limits.ts';
import { GuestMemory, type GuestRegion } from '../../src/memory/guest.ts';
import { Segments } from '../../src/memory/segments.ts';
import { native } from '../../src/native/index.ts';
import { mapPrps } from '../../src/nvme/prp.ts';
import { Random } from '../helpers/random.ts';

const PAGE = 4096;
const OK = 0;
const INVALID_OFFSET = 0x4013;
const TRANSFER_ERROR = 0x4004;

/** A piece of host memory. */
type Piece = [address: number, length: number];

interface Guest {
  readonly regions: readonly (GuestRegion & { readonly address: number })[];
  readonly memory: GuestMemory;
}

function makeGuest(layout: readonly { iova: number; pages: number; writable: boolean }[]): Guest {
  const memory = new GuestMemory(native);
  const regions = layout.map(({ iova, pages, writable }) => {
    const size = pages * PAGE;
    const fd = native.memfdCreate('test', size);
    const buffer = native.mapFile(fd, 0, size, true);
    closeSync(fd);
    const region = { iova, size, buffer, writable };
    memory.add(region);
    return { ...region, address: native.addressOf(new Uint8Array(buffer)) };
  });
  return { regions, memory };
}

const halves = (value: number): [number, number] => [
  (value % 2 ** 32) | 0,
  Math.floor(value / 2 ** 32) | 0,
];

function walk({ memory }: Guest, prp1: number, prp2: number, length: number, write: boolean) {
  const segments = new Segments();
  const status = mapPrps(memory, ...halves(prp1), ...halves(prp2), length, write, segments);
  assert.ok(segments.count <= MAX_SEGMENTS);
  const pieces: Piece[] = [];
  for (let i = 0; i < segments.count; i++) {
    pieces.push([segments.address[i], segments.length[i]]);
  }
  return { status, pieces };
}

/** As the specification says it, page by page, without a thought of speed. */
function reference(guest: Guest, prp1: number, prp2: number, length: number, write: boolean) {
  const find = (iova: number) =>
    guest.regions.find((region) => iova >= region.iova && iova < region.iova + region.size);
  const pieces: Piece[] = [];
  const take = (iova: number, bytes: number): boolean => {
    const region = find(iova);
    if (region === undefined || (write && !region.writable)) {
      return false;
    }
    const address = region.address + iova - region.iova;
    const last = pieces[pieces.length - 1];
    if (last !== undefined && last[0] + last[1] === address) {
      last[1] += bytes;
    } else {
      pieces.push([address, bytes]);
    }
    return true;
  };
  const entry = (iova: number): number | undefined => {
    const region = find(iova);
    return region === undefined
      ? undefined
      : Number(new DataView(region.buffer).getBigUint64(iova - region.iova, true));
  };
  const status = (): number => {
    if (prp1 % 4 !== 0) return INVALID_OFFSET;
    let left = length;
    const first = Math.min(left, PAGE - (prp1 % PAGE));
    if (!take(prp1, first)) return TRANSFER_ERROR;
    left -= first;
    if (left === 0) return OK;
    if (left <= PAGE) {
      if (prp2 % PAGE !== 0) return INVALID_OFFSET;
      return take(prp2, left) ? OK : TRANSFER_ERROR;
    }
    if (prp2 % 8 !== 0) return INVALID_OFFSET;
    let at = prp2;
    while (left > 0) {
      const value = entry(at);
      if (value === undefined) return TRANSFER_ERROR;
      if (value % PAGE !== 0) return INVALID_OFFSET;
      // The last entry of a list page leads to the next one, if it does not describe the last page of data.
      if (at % PAGE === PAGE - 8 && left > PAGE) {
        if (find(value) === undefined) return TRANSFER_ERROR;
        at = value;
        continue;
      }
      if (!take(value, Math.min(left, PAGE))) return TRANSFER_ERROR;
      left -= Math.min(left, PAGE);
      at += 8;
    }
    return OK;
  };
  return { status: status(), pieces };
}

/** Regions here and there, some side by side, some read only; every 8 bytes of them are a PRP entry, most of them good. */
function randomGuest(random: Random): { guest: Guest; address: (bad: number) => number } {
  const layout: { iova: number; pages: number; writable: boolean }[] = [];
  let iova = random.pick([PAGE * random.below(1000), 2 ** 32 - PAGE * random.below(40)]);
  for (let i = 1 + random.below(6); i > 0; i--) {
    const pages = 1 + random.below(40);
    layout.push({ iova, pages, writable: random.chance(0.9) });
    iova += pages * PAGE + random.pick([0, 0, PAGE, 2 ** 30, 2 ** 32, 2 ** 45]);
  }
  const guest = makeGuest(layout);
  const address = (bad: number): number => {
    const region = random.pick(guest.regions);
    const page = region.iova + PAGE * random.below(region.size / PAGE);
    if (!random.chance(bad)) {
      return page;
    }
    return random.pick([
      page + random.below(PAGE),
      page + 8,
      region.iova - PAGE,
      region.iova + region.size,
      0,
      2 ** 53,
      2 ** 63,
      2 ** 64 - PAGE,
      random.bits() * 2 ** 31,
    ]);
  };
  const bad = random.pick([0, 0, 0.001, 0.01]);
  // Buffers that lie in one piece, as far as they do: to the end of a region, and beyond it.
  const onward = random.pick([0, 0.5, 0.99]);
  for (const { buffer, size } of guest.regions) {
    const entries = new BigUint64Array(buffer, 0, size / 8);
    entries.forEach((_, i) => {
      const follows = i > 0 && random.chance(onward);
      entries[i] = follows ? entries[i - 1] + BigInt(PAGE) : BigInt(Math.max(0, address(bad)));
    });
  }
  return { guest, address };
}

t.test('agrees with the plain reading', async (t) => {
  const seen = new Map<number, number>();
  const property = fc.property(fc.integer(), (seed) => {
    const random = new Random(seed);
    const { guest, address } = randomGuest(random);
    for (let i = 0; i < 60; i++) {
      const prp1 = Math.max(0, address(0.05)) + 4 * random.below(random.pick([1, 1024]));
      const list = random.pick([0, PAGE - 8, 8 * random.below(512), 8 * random.below(512)]);
      const prp2 = Math.max(0, address(0.05)) + random.pick([0, list, list, 4]);
      const length = random.pick([
        1 + random.below(MAX_TRANSFER_BYTES),
        512 * random.size(MAX_TRANSFER_BYTES / 512),
        MAX_TRANSFER_BYTES,
        PAGE * (1 + random.below(4)),
      ]);
      const write = random.chance(0.5);
      const expected = reference(guest, prp1, prp2, length, write);
      const actual = walk(guest, prp1, prp2, length, write);
      assert.equal(actual.status, expected.status);
      seen.set(actual.status, (seen.get(actual.status) ?? 0) + 1);
      if (actual.status === OK) {
        assert.deepEqual(actual.pieces, expected.pieces);
        const total = actual.pieces.reduce((sum, [, bytes]) => sum + bytes, 0);
        assert.equal(total, length);
      }
    }
  });
  fc.assert(property, { numRuns: 60 });
  t.comment(`${[...seen].map(([status, count]) => `${status.toString(16)}: ${count}`).join(', ')}`);
  t.strictSame([...seen.keys()].sort(), [OK, TRANSFER_ERROR, INVALID_OFFSET], 'each outcome came');
});

t.test('the pages of a transfer', async (t) => {
  const guest = makeGuest([{ iova: 0x10_0000, pages: 520, writable: true }]);
  const { iova, buffer, address } = guest.regions[0];
  const entries = new BigUint64Array(buffer);
  const page = (n: number) => iova + n * PAGE;
  const host = (n: number) => address + n * PAGE;
  t.strictSame(walk(guest, page(1) + 4092, 0, 4, true), {
    status: OK,
    pieces: [[host(1) + 4092, 4]],
  });
  t.strictSame(walk(guest, page(1) + 4092, page(9), 8, true), {
    status: OK,
    pieces: [
      [host(1) + 4092, 4],
      [host(9), 4],
    ],
  });
  t.strictSame(
    walk(guest, page(1), page(2), 2 * PAGE, true),
    { status: OK, pieces: [[host(1), 2 * PAGE]] },
    'neighbours are one piece',
  );
  t.strictSame(walk(guest, page(2), page(1), 2 * PAGE, true), {
    status: OK,
    pieces: [
      [host(2), PAGE],
      [host(1), PAGE],
    ],
  });
  // A list of 255 entries, every other page, backwards: as many pieces as there can be.
  for (let i = 0; i < 256; i++) {
    entries[i] = BigInt(page(519 - 2 * i));
  }
  const scattered = walk(guest, page(1) + 2048, page(0), MAX_TRANSFER_BYTES, true);
  t.equal(scattered.status, OK);
  t.equal(scattered.pieces.length, MAX_SEGMENTS);
  t.strictSame(scattered.pieces[256], [host(519 - 2 * 255), 2048]);
});

t.test('lists that lead to themselves come to an end', async (t) => {
  const guest = makeGuest([{ iova: 0x10_0000, pages: 2, writable: true }]);
  const { iova, buffer } = guest.regions[0];
  new BigUint64Array(buffer).fill(BigInt(iova));
  for (const offset of [0, 8, 2048, PAGE - 16, PAGE - 8]) {
    const { status, pieces } = walk(guest, iova, iova + offset, MAX_TRANSFER_BYTES, true);
    t.equal(status, OK);
    t.equal(pieces.length, 256, 'the one page, over and over');
  }
});

t.test('PRP2 is not looked at when PRP1 is enough', async (t) => {
  const guest = makeGuest([{ iova: 0x10_0000, pages: 1, writable: true }]);
  t.equal(walk(guest, 0x10_0000, 3, PAGE, true).status, OK);
  t.equal(walk(guest, 0x10_0004, 3, PAGE, true).status, INVALID_OFFSET);
  t.equal(walk(guest, 0x10_0004, 0, PAGE, true).status, TRANSFER_ERROR);
});

t.test('a page at the end of 4 GiB is not followed by the one at their beginning', async (t) => {
  const layout = [2 ** 32, 2 ** 33 - PAGE].map((iova) => ({ iova, pages: 2, writable: true }));
  const guest = makeGuest([...layout, { iova: PAGE, pages: 1, writable: true }]);
  const list = guest.regions[2];
  new BigUint64Array(list.buffer).set([2n ** 33n - BigInt(PAGE), 2n ** 32n, 2n ** 32n]);
  const args = [guest, 2 ** 32, list.iova, 4 * PAGE, true] as const;
  t.strictSame(walk(...args), reference(...args));
  t.equal(walk(...args).status, OK);
});
