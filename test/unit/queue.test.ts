/** Submission and completion queues: wrapping, phases, room, and what the host sees when. NVMe Base 2.0 §3.3. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { CompletionQueue, SubmissionQueue } from '../../src/nvme/queue.ts';

const QID = 3;
const TAIL = 2 * QID;
const HEAD = 2 * QID + 1;

function make(size: number, interrupts = true) {
  const words = new Int32Array(new SharedArrayBuffer(16 * size));
  const doorbells = new Int32Array(new SharedArrayBuffer(4096));
  const cq = new CompletionQueue(QID, size, words, doorbells, interrupts, 7);
  return { words, doorbells, cq };
}

/** A driver: takes entries whose phase is the one it expects. */
class Host {
  readonly #words: Int32Array;
  readonly #doorbells: Int32Array;
  readonly #size: number;
  #head = 0;
  #phase = 1;

  constructor(words: Int32Array, doorbells: Int32Array) {
    this.#words = words;
    this.#doorbells = doorbells;
    this.#size = words.length / 4;
  }

  /** Takes at most `most` entries; tells the device if `ring`. */
  take(most = Number.POSITIVE_INFINITY, ring = true) {
    const taken: { dw0: number; sqhd: number; sqid: number; cid: number; status: number }[] = [];
    while (taken.length < most) {
      const at = 4 * this.#head;
      const dw3 = this.#words[at + 3];
      if (((dw3 >>> 16) & 1) !== this.#phase) {
        break;
      }
      const dw2 = this.#words[at + 2];
      taken.push({
        dw0: this.#words[at],
        sqhd: dw2 & 0xffff,
        sqid: dw2 >>> 16,
        cid: dw3 & 0xffff,
        status: dw3 >>> 17,
      });
      this.#head = (this.#head + 1) % this.#size;
      this.#phase ^= this.#head === 0 ? 1 : 0;
    }
    if (ring) {
      this.#doorbells[HEAD] = this.#head;
    }
    return taken;
  }
}

t.test('an entry as the host reads it', async (t) => {
  const { words, doorbells, cq } = make(4);
  const host = new Host(words, doorbells);
  t.equal(cq.room(1), 3, 'one entry less than there are');
  cq.stage(0x1234_5678, 0xfffe, 0xabcd, 0xffff, 0x7fff);
  t.strictSame(host.take(), [], 'staged is not published');
  t.equal(cq.hasStaged, true);
  cq.publish();
  t.equal(cq.hasStaged, false);
  t.strictSame(host.take(), [
    { dw0: 0x1234_5678, sqid: 0xfffe, sqhd: 0xabcd, cid: 0xffff, status: 0x7fff },
  ]);
  t.equal(words[1], 0);
});

t.test('what is staged together is published together, in its order', async (t) => {
  const { words, doorbells, cq } = make(8);
  const host = new Host(words, doorbells);
  for (let round = 0; round < 10; round++) {
    t.equal(cq.room(5) >= 5, true);
    for (let cid = 0; cid < 5; cid++) {
      cq.stage(0, QID, 0, 10 * round + cid, 0);
      t.strictSame(host.take(), []);
    }
    cq.publish();
    t.strictSame(
      host.take().map(({ cid }) => cid),
      [0, 1, 2, 3, 4].map((cid) => 10 * round + cid),
    );
  }
});

t.test('a full queue has no room until the host has moved its head', async (t) => {
  const { words, doorbells, cq } = make(3);
  const host = new Host(words, doorbells);
  t.equal(cq.room(8), 2);
  cq.reserve();
  t.equal(cq.room(8), 1, 'a command under way has its entry');
  cq.stage(0, QID, 0, 1, 0);
  t.equal(cq.room(8), 0);
  cq.unreserve();
  cq.stage(0, QID, 0, 2, 0);
  cq.publish();
  t.equal(cq.room(8), 0);
  t.equal(host.take(1).length, 1);
  t.equal(cq.room(8), 1);
  t.equal(host.take().length, 1);
  t.equal(cq.room(8), 2);
  t.equal(cq.pending, false);
});

t.test('nonsense for a head frees nothing', async (t) => {
  const { doorbells, cq } = make(4);
  for (const head of [4, 5, 0xffff, -1, 0x7fff_ffff, -0x8000_0000]) {
    Atomics.store(doorbells, HEAD, head);
    t.equal(cq.room(8), 0, `head ${head}`);
    t.equal(cq.pending, true);
  }
  Atomics.store(doorbells, HEAD, 0);
  t.equal(cq.room(8), 3);
});

t.test('interrupts are asked for only where the queue has them', async (t) => {
  for (const interrupts of [true, false]) {
    const { cq } = make(4, interrupts);
    t.equal(cq.needsSignal, false);
    t.equal(cq.room(1) > 0, true);
    cq.stage(0, QID, 0, 0, 0);
    cq.publish();
    t.equal(cq.needsSignal, interrupts);
    t.equal(cq.pending, true);
  }
});

t.test('memory that is away is not written, and comes back', async (t) => {
  const { words, doorbells, cq } = make(4);
  const host = new Host(words, doorbells);
  cq.room(1);
  cq.stage(0, QID, 0, 1, 0);
  cq.publish();
  cq.memory = new Int32Array(0);
  words.fill(0);
  cq.stage(0, QID, 0, 2, 0);
  cq.publish();
  t.ok(words.every((word) => word === 0));
  cq.memory = words;
  t.strictSame(host.take(), []);
});

t.test('against a model: no entry is lost, doubled, or written over', async () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('complete' as const), count: fc.integer({ min: 1, max: 9 }) }),
    fc.record({ kind: fc.constant('start' as const), count: fc.integer({ min: 1, max: 4 }) }),
    fc.record({ kind: fc.constant('finish' as const), count: fc.integer({ min: 1, max: 4 }) }),
    fc.record({ kind: fc.constant('take' as const), count: fc.integer({ min: 1, max: 9 }) }),
  );
  const property = fc.property(
    fc.integer({ min: 2, max: 9 }),
    fc.array(step, { maxLength: 120 }),
    (size, steps) => {
      const { words, doorbells, cq } = make(size);
      const host = new Host(words, doorbells);
      const published: number[] = [];
      let next = 0;
      let underWay = 0;
      const stage = (): void => {
        next += 1;
        cq.stage(next, QID, 0, next & 0xffff, 0);
        published.push(next);
      };
      for (const { kind, count } of steps) {
        for (let i = 0; i < count; i++) {
          if (kind === 'complete' && cq.room(1) > 0) {
            stage();
          } else if (kind === 'start' && cq.room(1) > 0) {
            cq.reserve();
            underWay += 1;
          } else if (kind === 'finish' && underWay > 0) {
            underWay -= 1;
            cq.unreserve();
            stage();
          } else if (kind === 'take') {
            const taken = host.take(1).map(({ dw0 }) => dw0);
            assert.deepEqual(taken, published.splice(0, taken.length));
          }
          assert.ok(published.length + underWay <= size - 1, 'never more than fit');
        }
        if (cq.hasStaged) {
          cq.publish();
        }
      }
      assert.deepEqual(
        host.take().map(({ dw0 }) => dw0),
        published,
      );
    },
  );
  fc.assert(property, { numRuns: 300 });
});

t.test('the tail of a submission queue', async (t) => {
  const { doorbells, cq } = make(4);
  const words = new Int32Array(new SharedArrayBuffer(64 * 8));
  const sq = new SubmissionQueue(QID, 8, words, doorbells, cq);
  t.equal(sq.tail(), 0);
  Atomics.store(doorbells, TAIL, 5);
  t.equal(sq.tail(), 5);
  t.notOk(sq.badTail);
  sq.head = 5;
  t.equal(sq.tail(), 5);
  Atomics.store(doorbells, TAIL, 2);
  t.equal(sq.tail(), 2, 'it has wrapped');
  for (const tail of [8, 9, 0xffff, -1, -0x8000_0000]) {
    sq.badTail = false;
    Atomics.store(doorbells, TAIL, tail);
    t.equal(sq.tail(), sq.head, `tail ${tail} is nothing new`);
    t.ok(sq.badTail);
  }
});

t.test('interrupts held back from a busy host are never lost', async (t) => {
  // What a driver does on an interrupt falls into two steps, between which anything can happen.
  const step = fc.constantFrom('post', 'round', 'consume', 'ring');
  let held = 0;
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const { words, doorbells, cq } = make(8);
      cq.adaptive = true;
      const host = new Host(words, doorbells);
      let posted = 0;
      let consumed = 0;
      let handling = false;
      let signalled = false;
      const run = (what: (typeof steps)[number]): void => {
        if (what === 'post' && cq.room(1) > 0) {
          cq.stage(0, QID, 0, posted & 0xffff, 0);
          cq.publish();
          posted += 1;
        } else if (what === 'round' && cq.needsSignal) {
          if (cq.hostBusy) {
            held += 1;
          } else {
            cq.signalled();
            signalled = true;
          }
        } else if (what === 'consume' && !handling && signalled) {
          signalled = false;
          handling = true;
          consumed += host.take(Number.POSITIVE_INFINITY, false).length;
        } else if (what === 'ring' && handling) {
          handling = false;
          host.take(0);
        }
      };
      steps.forEach(run);
      for (let i = 0; i < 3; i++) {
        run('round');
        run('ring');
        run('consume');
        run('ring');
      }
      assert.equal(consumed, posted);
    }),
  );
  t.ok(held > 0, 'some were held back');
});

t.test('a lone completion interrupts at once', async (t) => {
  const { words, doorbells, cq } = make(4);
  cq.adaptive = true;
  const host = new Host(words, doorbells);
  for (let i = 0; i < 10; i++) {
    cq.stage(0, QID, 0, i, 0);
    cq.publish();
    t.ok(cq.needsSignal && !cq.hostBusy);
    cq.signalled();
    host.take();
  }
});

t.test(
  'event indexes: a host is not rung while it is polled, and is once it is asked to',
  async () => {
    const cases = fc.record({
      size: fc.integer({ min: 2, max: 40 }),
      steps: fc.array(fc.integer({ min: -1, max: 39 }), { maxLength: 100 }),
    });
    fc.assert(
      fc.property(cases, ({ size, steps }) => {
        const { doorbells, cq } = make(64);
        const eventIdx = new Int32Array(1024);
        const sq = new SubmissionQueue(QID, size, new Int32Array(16 * size), doorbells, cq);
        sq.eventIdx = eventIdx;
        sq.hushNow();
        let armed = false;
        for (const step of steps) {
          if (step < 0) {
            sq.arm();
            armed = true;
            continue;
          }
          // NVMe Base 2.0 §B.5, as Linux has it.
          const old = doorbells[TAIL];
          const steps = 1 + (step % Math.max(1, size >> 1));
          const value = (old + steps) % size;
          doorbells[TAIL] = value;
          const rings = ((value - eventIdx[TAIL] - 1) & 0xffff) < ((value - old) & 0xffff);
          assert.equal(rings, armed);
          if (rings) {
            armed = false;
            sq.hushNow();
          }
          sq.head = sq.tail();
          if (!armed) {
            sq.hush();
          }
        }
      }),
    );
  },
);
