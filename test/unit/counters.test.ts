/** Counter rows, their sums, and who has which row: against plain models. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import {
  bucketEnd,
  COUNTERS_BYTES,
  Column,
  Counters,
  LATENCY_BUCKETS,
  LATENCY_SHIFT,
  rowOf,
  STATUSES,
} from '../../src/bdev/counters.ts';
import { Op } from '../../src/bdev/op.ts';
import { Tally } from '../../src/bdev/tally.ts';
import { MAX_COUNTER_ROWS } from '../../src/limits.ts';
import { CounterRows, NO_BDEV, NO_NAMESPACE } from '../../src/reactor/counter-rows.ts';

const memory = () => new SharedArrayBuffer(COUNTERS_BYTES);

t.test('latencies fall into buckets an eighth of an octave wide', async (t) => {
  const shared = memory();
  const ns = fc.oneof(
    fc.integer({ min: 0, max: 100 }),
    fc.integer({ min: 0, max: 2 ** 31 - 1 }),
    fc.double({ min: 2 ** 31, max: 2 ** 40, noNaN: true }).map(Math.floor),
    fc.integer({ min: 0, max: 30 }).map((bits) => 2 ** bits),
  );
  fc.assert(
    fc.property(fc.array(ns, { maxLength: 50 }), (latencies) => {
      rowOf(shared, 0).fill(0);
      const counters = new Counters(shared, 0);
      for (const latency of latencies) {
        counters.time(Op.READ, Float64Array.of(latency + 1e9), Float64Array.of(0, 1e9), 1);
      }
      const tally = new Tally().add(rowOf(shared, 0));
      const found = [...tally.histogram(Op.READ)].flatMap((count, bucket) =>
        Array<number>(count).fill(bucket),
      );
      const sorted = [...latencies].sort((a, b) => a - b);
      assert.equal(found.length, sorted.length);
      for (const [i, latency] of sorted.entries()) {
        const end = bucketEnd(found[i]);
        assert.ok(latency < end, `${latency} ns in the bucket below ${end}`);
        const start = found[i] === 0 ? 0 : bucketEnd(found[i] - 1);
        assert.ok(latency >= start, `${latency} ns in the bucket from ${start}`);
      }
      const { minLatency, maxLatency } = tally.of(Op.READ);
      assert.equal(minLatency, sorted[0] ?? 0);
      assert.equal(maxLatency, sorted.at(-1) ?? 0);
    }),
  );
  const late = new Counters(shared, 1);
  late.time(Op.WRITE, Float64Array.of(1e15), Float64Array.of(0), 0);
  t.equal(rowOf(shared, 1)[Column.HISTOGRAM + 2 * LATENCY_BUCKETS - 1], 1, 'days are the last');
});

t.test("SPDK's histogram.py reads the same bounds", async (t) => {
  // The arithmetic of its two loops: bucket j of range i ends here.
  let bucket = 0;
  for (let range = 0; bucket < LATENCY_BUCKETS; range++) {
    for (let j = 0; j < 1 << LATENCY_SHIFT && bucket < LATENCY_BUCKETS; j++, bucket++) {
      const end = range > 0 ? 2 ** (range + LATENCY_SHIFT - 1) + (j + 1) * 2 ** (range - 1) : j + 1;
      assert.equal(bucketEnd(bucket), end);
    }
  }
  t.pass();
});

t.test('errors are told apart up to a bound', async (t) => {
  const shared = memory();
  const counters = new Counters(shared, 3);
  for (let status = 1; status <= STATUSES + 2; status++) {
    for (let i = 0; i < status; i++) {
      counters.fail(status);
    }
  }
  const { errors } = new Tally().add(rowOf(shared, 3));
  t.equal(errors.get(STATUSES), STATUSES);
  t.equal(errors.get(STATUSES + 1), undefined);
  t.equal(errors.get(-1), 2 * STATUSES + 3);
});

t.test('samples stand for all', async (t) => {
  const shared = memory();
  const counters = new Counters(shared, 3);
  for (let i = 0; i < 640; i++) {
    counters.count(Op.READ, 512);
  }
  counters.sample(Op.READ, Float64Array.of(100), Float64Array.of(0), 0);
  const read = new Tally().add(rowOf(shared, 3)).of(Op.READ);
  t.strictSame(read, {
    ops: 640,
    bytes: 640 * 512,
    latency: 64_000,
    timedLatency: 64_000,
    minLatency: 100,
    maxLatency: 100,
  });
});

t.test('a row of samples weighs as much as one of every command', async (t) => {
  const shared = memory();
  const [sampled, full] = [new Counters(shared, 3), new Counters(shared, 4)];
  for (let i = 0; i < 300; i++) {
    sampled.count(Op.READ, 512);
    if (i % 64 === 63) {
      sampled.sample(Op.READ, Float64Array.of(10_000), Float64Array.of(0), 0);
    }
  }
  for (let i = 0; i < 100; i++) {
    full.count(Op.READ, 512);
    full.time(Op.READ, Float64Array.of(3_000_000), Float64Array.of(0), 0);
  }
  const sum = new Tally().add(rowOf(shared, 3)).add(rowOf(shared, 4));
  const [fast, slow] = sum.latencies(Op.READ);
  t.equal(fast[1], 256, 'four samples, for 64 commands each');
  t.equal(slow[1], 100);
});

t.test('rows come and go, and nothing is counted twice or lost', async () => {
  const REACTORS = 2;
  const step = fc.record({
    what: fc.constantFrom('take', 'give', 'count', 'count', 'count', 'reset', 'error-reset'),
    pick: fc.nat(1000),
    reactor: fc.nat(REACTORS - 1),
    bdev: fc.nat(2),
    controller: fc.nat(2),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      const memories = Array.from({ length: REACTORS }, memory);
      const rows = new CounterRows(memories);
      const live: { row: number; bdev: number; controller: number; nsid: number }[] = [];
      const ever = new Map<string, number>();
      const since = new Map<string, number>();
      const failed = new Map<string, number>();
      const add = (map: Map<string, number>, ...keys: string[]) => {
        for (const key of keys) {
          map.set(key, (map.get(key) ?? 0) + 1);
        }
      };
      let nsid = 0;
      for (const { what, pick, reactor, bdev, controller } of steps) {
        const at = pick % Math.max(1, live.length);
        const use = live[at];
        if (what === 'take') {
          nsid += 1;
          live.push({ row: rows.take({ controller, nsid, bdev }), bdev, controller, nsid });
        } else if (what === 'give' && use !== undefined) {
          rows.give(use.row);
          live.splice(at, 1);
        } else if (what === 'count' && use !== undefined) {
          const counters = new Counters(memories[reactor], use.row);
          counters.count(Op.WRITE, 512);
          counters.fail(5);
          add(ever, `b${use.bdev}.${reactor}`, `c${use.controller}`, `n${use.nsid}`);
          add(since, `b${use.bdev}.${reactor}`);
          add(failed, `b${use.bdev}.${reactor}`);
        } else if (what === 'reset' || what === 'error-reset') {
          rows.reset(bdev, what === 'reset' ? 'all' : 'error');
          for (let i = 0; i < REACTORS; i++) {
            failed.delete(`b${bdev}.${i}`);
            if (what === 'reset') {
              since.delete(`b${bdev}.${i}`);
            }
          }
        }
      }
      for (let bdev = 0; bdev < 3; bdev++) {
        for (let reactor = 0; reactor < REACTORS; reactor++) {
          const key = `b${bdev}.${reactor}`;
          assert.equal(rows.bdev(bdev, reactor).of(Op.WRITE).ops, ever.get(key) ?? 0);
          const tally = rows.bdevSinceReset(bdev, reactor);
          assert.equal(tally.of(Op.WRITE).ops, since.get(key) ?? 0);
          assert.equal(tally.of(Op.WRITE).bytes, 512 * (since.get(key) ?? 0));
          assert.equal(tally.errors.get(5) ?? 0, failed.get(key) ?? 0);
        }
      }
      for (let controller = 0; controller < 3; controller++) {
        assert.equal(rows.controller(controller).of(Op.WRITE).ops, ever.get(`c${controller}`) ?? 0);
      }
      for (const use of live) {
        const { ops } = rows.controller(use.controller, use.nsid).of(Op.WRITE);
        assert.equal(ops, ever.get(`n${use.nsid}`) ?? 0);
      }
    }),
    { numRuns: 30 },
  );
});

t.test('when there is no row left', async (t) => {
  const rows = new CounterRows([memory()]);
  const use = { controller: 1, nsid: NO_NAMESPACE, bdev: NO_BDEV };
  const taken = new Set(Array.from({ length: MAX_COUNTER_ROWS - 1 }, () => rows.take(use)));
  t.equal(taken.size, MAX_COUNTER_ROWS - 1);
  const last = rows.take(use);
  t.notOk(taken.has(last));
  t.equal(rows.take(use), last, 'the rest share one');
  rows.give(last);
  t.equal(rows.take(use), last, 'which is nobody’s to give back');
  const [one] = taken;
  rows.give(one);
  t.equal(rows.take(use), one);
});
