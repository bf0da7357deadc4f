/**
 * A guest that sends nonsense: each command gets its one completion, and a neighbour's data is not disturbed. The nonsense leaves the
 * memory of the queues alone, so that completions can be counted; `hostile-chaos.test.ts` does not.
 */
import assert from 'node:assert/strict';
import t from 'tap';
import { ClientMemory } from '../../src/client/memory.ts';
import type { NvmeClient } from '../../src/client/nvme.ts';
import { CQE_SIZE, SQE_SIZE } from '../../src/spec/nvme.ts';
import { neighbour } from '../helpers/integrity.ts';
import { createCq, createSq, room } from '../helpers/queues.ts';
import { Random } from '../helpers/random.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const PAGE = 4096;
const DEPTH = 64;
/** Of the type of media errors, though nothing is wrong with the disk: a Compare found a difference, a block was marked uncorrectable. */
const OF_GUESTS: readonly number[] = [0x285, 0x281];

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Addresses of a guest that has a megabyte at `IOVA`, a page that is read only, and no shame. */
const IOVA = 0x4000_0000;

function address(random: Random): number {
  const inside = IOVA + random.below(MIB);
  return random.pick([
    inside - (inside % PAGE),
    inside - (inside % PAGE),
    inside - (inside % 4),
    inside,
    IOVA + MIB,
    IOVA + MIB - 4,
    IOVA - PAGE,
    0x1000,
    0,
    random.bits() * random.bits(),
    2 ** 53,
    2 ** 63,
    2 ** 64 - PAGE,
  ]);
}

/** Fills a megabyte with what a PRP list could be. */
function scribble(random: Random, memory: ClientMemory): void {
  const entries = new BigUint64Array(memory.buffer);
  for (let i = 0; i < entries.length; i++) {
    entries[i] = BigInt(address(random));
  }
}

/** An entry of noise, or one that is nearly good. */
function nonsense(random: Random, words: Int32Array): void {
  words.forEach((_, i) => {
    words[i] = random.bits();
  });
  if (random.chance(0.1)) {
    return;
  }
  const view = new DataView(words.buffer, words.byteOffset, words.byteLength);
  const flags = random.chance(0.05) ? random.bits() & 0xff : 0;
  view.setUint16(0, random.pick([0, 1, 2, 2, 1, random.below(256)]) | (flags << 8), true);
  view.setUint32(4, random.pick([1, 2, 1, 2, 1, 2, 0, 3, 0xffff_ffff, random.bits()]), true);
  view.setBigUint64(24, BigInt(address(random)), true);
  view.setBigUint64(32, BigInt(address(random)), true);
  view.setUint32(40, random.pick([random.below(4096), random.below(5000), random.bits()]), true);
  view.setUint32(44, random.chance(0.9) ? 0 : random.bits(), true);
  view.setUint32(
    48,
    random.pick([random.size(2048) - 1, random.below(65536), random.bits()]),
    true,
  );
}

/** Submits `count` entries of nonsense, and counts completions by command id until none is owed. */
async function torment(
  client: NvmeClient,
  qid: number,
  count: number,
  memory: ClientMemory,
  random: Random,
): Promise<Set<number>> {
  const sq = room(client.memory, DEPTH * SQE_SIZE);
  const cq = room(client.memory, DEPTH * CQE_SIZE);
  for (const made of [
    await createCq(client, { qid, depth: DEPTH, iova: cq.iova }),
    await createSq(client, { qid, depth: DEPTH, iova: sq.iova }),
  ]) {
    assert.equal(made.status, 0);
  }
  const doorbells = client.admin.place.doorbells!;
  const statuses = new Set<number>();
  const owed = new Map<number, number>();
  let submitted = 0;
  let completed = 0;
  let tail = 0;
  let head = 0;
  let phase = 1;
  while (completed < count) {
    while (submitted < count && submitted - completed < DEPTH - 1 && random.chance(0.9)) {
      const words = sq.words.subarray(16 * tail, 16 * tail + 16);
      nonsense(random, words);
      const cid = words[0] >>> 16;
      owed.set(cid, (owed.get(cid) ?? 0) + 1);
      submitted += 1;
      tail = (tail + 1) % DEPTH;
    }
    Atomics.store(doorbells, 2 * qid, tail);
    // PRP lists change under the reactor's eyes.
    const entries = new BigUint64Array(memory.buffer);
    for (let i = 0; i < 200; i++) {
      entries[random.below(entries.length)] = BigInt(address(random));
    }
    for (;;) {
      const dw3 = Atomics.load(cq.words, 4 * head + 3);
      if (((dw3 >>> 16) & 1) !== phase) {
        break;
      }
      const cid = dw3 & 0xffff;
      const left = (owed.get(cid) ?? 0) - 1;
      assert.ok(left >= 0, `a completion of command ${cid} that nobody is owed`);
      owed.set(cid, left);
      assert.equal(cq.words[4 * head + 2] >>> 16, qid);
      statuses.add((dw3 >>> 17) & 0x7ff);
      completed += 1;
      head = (head + 1) % DEPTH;
      phase ^= head === 0 ? 1 : 0;
    }
    Atomics.store(doorbells, 2 * qid + 1, head);
    await turn();
  }
  return statuses;
}

t.test('nonsense in I/O queues', { timeout: 600_000 }, async (t) => {
  const random = new Random();
  t.comment(`SEED=${random.seed}`);
  const target = await TestTarget.start(t, { reactors: 2 });
  const stopNeighbour = await neighbour(target);
  const bdevs = [await target.malloc(2 * MIB), await target.file(target.image(2 * MIB))];
  const served = await target.serve(...bdevs);
  const client = await target.connect(served);
  const memory = new ClientMemory(MIB, IOVA);
  const rom = new ClientMemory(PAGE, 0x1000);
  t.teardown(() => {
    memory.close();
    rom.close();
  });
  await client.vfio.dmaMap({ iova: IOVA, size: MIB, fd: memory.fd });
  await client.vfio.dmaMap({ iova: rom.iova, size: PAGE, fd: rom.fd, writable: false });
  rom.bytes(0, PAGE).fill(0x44);
  scribble(random, memory);
  const seen = await Promise.all(
    [1, 2, 3, 4].map((qid) => torment(client, qid, 10_000, memory, random)),
  );
  const statuses = new Set(seen.flatMap((set) => [...set]));
  t.comment(`statuses: ${[...statuses].map((status) => status.toString(16)).join(' ')}`);
  for (const status of [0x000, 0x001, 0x002, 0x004, 0x00b, 0x013, 0x080]) {
    t.ok(statuses.has(status), `status ${status.toString(16)}`);
  }
  t.ok(
    [...statuses].every((status) => status >> 8 <= 1 || OF_GUESTS.includes(status)),
    'the disks themselves had nothing to complain of',
  );
  t.ok(
    rom.bytes(0, PAGE).every((byte) => byte === 0x44),
    'memory that is read only is as it was',
  );
  t.equal((await client.identifyController()).vid, 0x4e58);
  client.close();
  const next = await target.connect(served);
  t.equal((await next.identifyController()).vid, 0x4e58, 'the next guest is served');
  await stopNeighbour();
  t.pass('the neighbour had every byte as it should be');
});
