/** The list of mapped ranges against a model that looks at every range. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { DmaTable } from '../../src/vfio-user/dma-table.ts';

t.test('agrees with a plain list', async () => {
  const step = fc.record({
    start: fc.nat(40),
    size: fc.integer({ min: 1, max: 8 }),
    remove: fc.boolean(),
  });
  const property = fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
    const table = new DmaTable();
    const model: { start: number; size: number }[] = [];
    for (const { start, size, remove } of steps) {
      const overlaps = model.some((r) => r.start < start + size && start < r.start + r.size);
      const exact = model.findIndex((r) => r.start === start && r.size === size);
      assert.equal(table.overlaps(start, size), overlaps);
      assert.equal(table.has(start, size), exact >= 0);
      if (remove && exact >= 0) {
        table.remove(start);
        model.splice(exact, 1);
      } else if (!overlaps) {
        table.add(start, size);
        model.push({ start, size });
      }
      assert.equal(table.count, model.length);
    }
    table.clear();
    assert.equal(table.count, 0);
    assert.equal(table.overlaps(0, 100), false);
  });
  fc.assert(property, { numRuns: 200 });
});
