/** Guest memory as reactors see it: which host address an IOVA has, what a queue lies in. */
import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import fc from 'fast-check';
import t from 'tap';
import { GuestMemory, type GuestRegion } from '../../src/memory/guest.ts';
import { Segments } from '../../src/memory/segments.ts';
import { native } from '../../src/native/index.ts';

const PAGE = 4096;
const GIB = 2 ** 30;

function region(iova: number, size: number, writable = true): GuestRegion {
  const fd = native.memfdCreate('test', size);
  try {
    return { iova, size, buffer: native.mapFile(fd, 0, size, true), writable };
  } finally {
    closeSync(fd);
  }
}

const addressOf = ({ buffer }: GuestRegion) => native.addressOf(new Uint8Array(buffer, 0, 1));

const halves = (value: number): [number, number] => [
  (value % 2 ** 32) | 0,
  Math.floor(value / 2 ** 32) | 0,
];

/** The host address of a piece within a page, or undefined. */
function find(memory: GuestMemory, iova: number, length: number, write: boolean) {
  const segments = new Segments();
  const found = memory.append(...halves(iova), length, write, segments);
  assert.equal(segments.count, found ? 1 : 0);
  return found ? segments.address[0] : undefined;
}

t.test('regions that come and go, against a plain list', async () => {
  // Real mappings, used at any IOVA in turn.
  const mappings = Array.from({ length: 12 }, (_, i) => region(0, PAGE * (1 + (i % 4))));
  const step = fc.record({
    mapping: fc.nat(mappings.length - 1),
    slot: fc.nat(15),
    writable: fc.boolean(),
    probe: fc.nat(16 * 4 * PAGE),
    far: fc.boolean(),
    slots: fc.integer({ min: 1, max: 16 }),
  });
  const property = fc.property(fc.array(step, { minLength: 1, maxLength: 80 }), (steps) => {
    const memory = new GuestMemory(native);
    const model: GuestRegion[] = [];
    for (const { mapping, slot, writable, probe, far, slots } of steps) {
      const base = far ? 2 ** 52 : 2 ** 32 - 8 * PAGE;
      const iova = base + slot * 4 * PAGE;
      const at = model.findIndex((other) => other.iova === iova);
      if (at >= 0) {
        // With those in the slots that follow.
        const end = iova + slots * 4 * PAGE;
        const gone = model.filter((other) => other.iova >= iova && other.iova < end);
        const ranges = memory.hostRanges(iova, end);
        for (const { buffer, size } of mappings) {
          const start = native.addressOf(new Uint8Array(buffer, 0, 1));
          const hit = gone.some((other) => other.buffer === buffer);
          assert.equal(ranges.overlaps(start, start + 1), hit);
          assert.equal(ranges.overlaps(start + size - 1, start + size), hit);
        }
        assert.deepEqual(
          memory.remove(iova, end),
          gone.sort((a, b) => a.iova - b.iova),
        );
        model.splice(0, model.length, ...model.filter((other) => !gone.includes(other)));
        assert.deepEqual(memory.remove(iova, end), []);
      } else {
        const added = { ...mappings[mapping], iova, writable };
        memory.add(added);
        model.push(added);
      }
      assert.deepEqual(
        memory.regions.map((other) => other.iova),
        model.map((other) => other.iova).sort((a, b) => a - b),
      );
      for (const start of [base + probe, base + probe - (probe % PAGE), iova, iova - 4]) {
        const length = Math.min(4, PAGE - (start % PAGE));
        const hit = model.find((r) => start >= r.iova && start + length <= r.iova + r.size);
        const address = hit && addressOf(hit) + start - hit.iova;
        assert.equal(find(memory, start, length, false), address);
        assert.equal(find(memory, start, length, true), hit?.writable ? address : undefined);
      }
    }
  });
  fc.assert(property, { numRuns: 150 });
});

t.test('neighbours in host memory become one segment', async (t) => {
  const memory = new GuestMemory(native);
  const whole = region(0x10_0000, 4 * PAGE);
  memory.add(whole);
  const segments = new Segments();
  const append = (iova: number, length: number) =>
    memory.append(...halves(iova), length, true, segments);
  t.ok(append(0x10_0000 + 100, PAGE - 100));
  t.ok(append(0x10_0000 + PAGE, PAGE));
  t.equal(segments.count, 1);
  t.equal(segments.length[0], 2 * PAGE - 100);
  t.ok(append(0x10_0000 + 3 * PAGE, 8));
  t.equal(segments.count, 2);
  t.equal(segments.address[1], addressOf(whole) + 3 * PAGE);
  t.notOk(append(0x10_0000 + 4 * PAGE, 8));
  t.equal(segments.count, 2, 'a refused piece adds nothing');
});

t.test('words of regions larger than a typed array looks at', async (t) => {
  const memory = new GuestMemory(native);
  const large = region(5 * GIB, 5 * GIB);
  memory.add(large);
  const view = new DataView(large.buffer);
  for (const offset of [0, 4, GIB - 4, GIB, 4 * GIB - 8, 4 * GIB, 5 * GIB - PAGE, 5 * GIB - 4]) {
    view.setInt32(offset, 0x1234_0000 + (offset % 1000), true);
    t.ok(memory.locate(...halves(5 * GIB + offset)));
    t.equal(memory.words[memory.index], 0x1234_0000 + (offset % 1000), `at ${offset}`);
    const toPageEnd = (PAGE - (offset % PAGE)) / 4;
    t.ok(memory.words.length - memory.index >= toPageEnd, 'all words of the page');
  }
  t.notOk(memory.locate(...halves(5 * GIB - 4)));
  t.notOk(memory.locate(...halves(10 * GIB)));
  memory.remove(5 * GIB, 6 * GIB);
  t.equal(memory.words.length, 0, 'no view is kept of memory that is gone');
  t.notOk(memory.locate(...halves(5 * GIB)));
});

t.test('queues in one region', async (t) => {
  const memory = new GuestMemory(native);
  const only = region(0x10_0000, 4 * PAGE);
  memory.add(only);
  memory.add(region(0x20_0000, PAGE, false));
  const queue = memory.queueMemory(0x10_1000, 3 * PAGE, true);
  t.equal(queue?.alias, undefined);
  t.equal(queue?.words.length, (3 * PAGE) / 4);
  queue?.words.fill(7);
  t.equal(new Int32Array(only.buffer)[PAGE / 4 - 1], 0);
  t.equal(new Int32Array(only.buffer)[PAGE / 4], 7);
  t.equal(memory.queueMemory(0x10_1000, 32, true)?.words.length, 8, 'a part of a page');
  t.equal(memory.queueMemory(0x10_1000, 3 * PAGE + 64, true), undefined, 'ends outside');
  t.equal(memory.queueMemory(0x0f_f000, 2 * PAGE, true), undefined, 'begins outside');
  t.equal(memory.queueMemory(0x20_0000, 64, true), undefined, 'read only');
  t.equal(memory.queueMemory(0x20_0000, 64, false)?.words.length, 16);
  t.equal(memory.queueMemory(2 ** 63, 64, false), undefined);
});

t.test('queues across regions', async (t) => {
  const memory = new GuestMemory(native);
  const parts = [region(0x10_0000, PAGE), region(0x10_1000, 2 * PAGE), region(0x10_3000, PAGE)];
  for (const part of parts) {
    memory.add(part);
  }
  const queue = memory.queueMemory(0x10_0000, 4 * PAGE, true);
  t.ok(queue?.alias);
  queue?.words.forEach((_, i, words) => {
    words[i] = i;
  });
  let next = 0;
  for (const { buffer } of parts) {
    for (const word of new Int32Array(buffer)) {
      assert.equal(word, next++);
    }
  }
  if (queue?.alias !== undefined) {
    native.revoke(queue.alias);
  }
  t.equal(new Int32Array(parts[1].buffer)[0], PAGE / 4, 'the regions outlive the extra mapping');
  t.ok(memory.queueMemory(0x10_2000, 2 * PAGE, true)?.alias, 'from the middle of one on');
  memory.remove(0x10_1000, 0x10_3000);
  t.equal(memory.queueMemory(0x10_0000, 4 * PAGE, true), undefined, 'a hole');
  memory.add({ ...parts[1], writable: false });
  t.equal(memory.queueMemory(0x10_0000, 4 * PAGE, true), undefined, 'a piece that is read only');
  t.ok(memory.queueMemory(0x10_0000, 4 * PAGE, false));
});
