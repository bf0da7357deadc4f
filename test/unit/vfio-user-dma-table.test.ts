/** The list of mapped ranges against a model that looks at every range. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { DmaTable } from '../../src/vfio-user/dma-table.ts';

t.test('agrees with a plain list', async () => {
  const step = fc.record({
    start: fc.nat(40),
    size: fc.oneof(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 9, max: 40 })),
    remove: fc.boolean(),
  });
  const property = fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
    const table = new DmaTable();
    let model: { start: number; size: number }[] = [];
    for (const { start, size, remove } of steps) {
      const end = start + size;
      const hit = model.filter((r) => r.start < end && start < r.start + r.size);
      const inside = hit.filter((r) => r.start >= start && r.start + r.size <= end);
      assert.equal(table.overlaps(start, size), hit.length > 0);
      assert.equal(table.cuts(start, end), hit.length > inside.length);
      if (remove && hit.length === inside.length) {
        const bytes = inside.reduce((sum, r) => sum + r.size, 0);
        assert.equal(table.remove(start, end), bytes);
        model = model.filter((r) => !inside.includes(r));
      } else if (hit.length === 0) {
        table.add(start, size);
        model.push({ start, size });
      }
      assert.equal(table.count, model.length);
    }
    table.remove(0, 2 ** 64);
    assert.equal(table.count, 0);
    assert.equal(table.overlaps(0, 100), false);
  });
  fc.assert(property, { numRuns: 200 });
});
