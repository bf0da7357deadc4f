/** Which queues move away from a busy reactor, and that they do not wander. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { Balancer, type Decision } from '../../src/target/balancer.ts';

const LIMITS = { coreBusy: 95, coreLimit: 80 };
/** A look takes so long, in ns. */
const PERIOD = 1e9;

/** Reactors and queues as they would be: a queue costs its reactor `load` percent of its time. */
class World {
  readonly balancer: Balancer;
  readonly #times: { busy: number; idle: number }[];
  readonly queues: { key: string; reactor: number; load: number; commands: number }[];
  readonly dead = new Set<number>();

  constructor(
    reactors: number,
    queues: readonly { reactor: number; load: number }[],
    limits = LIMITS,
  ) {
    this.balancer = new Balancer(limits);
    this.#times = Array.from({ length: reactors }, () => ({ busy: 0, idle: 0 }));
    this.queues = queues.map((queue, i) => ({ key: `q${i}`, commands: 0, ...queue }));
  }

  loadOf(reactor: number): number {
    const here = this.queues.filter((queue) => queue.reactor === reactor);
    return Math.min(
      100,
      here.reduce((sum, { load }) => sum + load, 0),
    );
  }

  /** A period passes, and what is decided is done. */
  look(move = true): Decision[] {
    for (const [reactor, time] of this.#times.entries()) {
      const busy = (this.loadOf(reactor) / 100) * PERIOD;
      time.busy += busy;
      time.idle += PERIOD - busy;
    }
    for (const queue of this.queues) {
      queue.commands += queue.load > 0 ? 1 : 0;
    }
    const decisions = this.balancer.look(
      this.#times.map((time, reactor) => ({ ...time, alive: !this.dead.has(reactor) })),
      this.queues.map(({ key, reactor, commands }) => ({ key, reactor, progress: `${commands}` })),
    );
    for (const { key, from, to } of decisions) {
      const queue = this.queues.find((each) => each.key === key);
      assert.ok(queue);
      assert.equal(queue.reactor, from);
      assert.notEqual(from, to);
      assert.ok(!this.dead.has(to));
      if (move) {
        queue.reactor = to;
      }
    }
    return decisions;
  }

  looks(count: number): Decision[] {
    return Array.from({ length: count }, () => this.look()).flat();
  }
}

t.test('two busy queues on one of two reactors', async (t) => {
  const world = new World(2, [
    { reactor: 0, load: 60 },
    { reactor: 0, load: 60 },
  ]);
  t.strictSame(world.look(), [], 'nothing is known yet');
  t.strictSame(world.look(), [], 'it may pass');
  t.strictSame(world.look(), [{ key: 'q0', from: 0, to: 1 }]);
  t.strictSame(world.looks(50), []);
});

t.test('what stays where it is', async (t) => {
  const lone = new World(2, [{ reactor: 0, load: 100 }]);
  t.strictSame(lone.looks(20), [], 'one queue, however busy');
  const idle = new World(2, [
    { reactor: 0, load: 100 },
    { reactor: 0, load: 0 },
  ]);
  t.strictSame(idle.looks(20), [], 'one queue, and one without commands');
  const calm = new World(2, [
    { reactor: 0, load: 45 },
    { reactor: 0, load: 45 },
  ]);
  t.strictSame(calm.looks(20), [], 'a reactor that has time left');
  const full = new World(2, [
    { reactor: 0, load: 50 },
    { reactor: 0, load: 50 },
    { reactor: 1, load: 60 },
  ]);
  t.strictSame(full.looks(20), [], 'the other has no time for it');
  const alone = new World(2, [
    { reactor: 0, load: 50 },
    { reactor: 0, load: 50 },
  ]);
  alone.dead.add(1);
  t.strictSame(alone.looks(20), [], 'the other is dead');
});

t.test('a queue that did not move is not tried again at once', async (t) => {
  const world = new World(2, [
    { reactor: 0, load: 60 },
    { reactor: 0, load: 60 },
  ]);
  const tried = Array.from({ length: 9 }, () => world.look(false)).flat();
  t.strictSame(
    tried.map(({ key }) => key),
    ['q0', 'q1'],
  );
});

t.test(
  'whatever the loads: queues come to rest, and a reactor is not made busier than those they leave',
  async () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 4 }),
        fc.array(fc.record({ reactor: fc.nat(3), load: fc.nat(120) }), { maxLength: 12 }),
        (reactors, queues) => {
          const world = new World(
            reactors,
            queues.map(({ reactor, load }) => ({ reactor: reactor % reactors, load })),
          );
          const lone = world.queues.filter(({ load }) => load >= LIMITS.coreBusy);
          const moves = world.looks(200);
          // A queue moves at most once in a rest of ten looks.
          for (const { key } of world.queues) {
            assert.ok(moves.filter((move) => move.key === key).length <= 20);
          }
          if (
            lone.length === 0 &&
            queues.reduce((sum, { load }) => sum + load, 0) < LIMITS.coreLimit
          ) {
            assert.deepEqual(moves, []);
          }
        },
      ),
    );
  },
);
