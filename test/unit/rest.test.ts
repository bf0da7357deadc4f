/** How long a reactor sleeps: until something may go on, and no longer. */
import t from 'tap';
import { Limiter, makeLimits, NO_LIMITS, writeLimits } from '../../src/bdev/limiter.ts';
import { Op } from '../../src/bdev/op.ts';
import { CONTROL_BYTES } from '../../src/reactor/control.ts';
import { Rest, type Sleeper } from '../../src/reactor/rest.ts';

const US = 1000;

/** A reactor without work whose time passes by 10 µs a round: its first sleep (µs), and the time at which it began (ns). */
function firstSleep(reactor: Pick<Sleeper, 'unheard' | 'due' | 'inflight'>) {
  let now = 0;
  let slept: number | undefined;
  const bindClock =
    (times: Float64Array) =>
    (index = 0) => {
      times[index] = now;
    };
  const sleeper = {
    quick: false,
    ...reactor,
    arm: () => {},
    hush: () => {},
    sleep: (microseconds: number) => {
      slept = microseconds;
    },
  };
  const options = { spinUs: 0, maxSleepUs: 100_000, control: new SharedArrayBuffer(CONTROL_BYTES) };
  const rest = new Rest(options, sleeper, { bindClock, bindThreadClock: bindClock });
  while (slept === undefined) {
    now += 10 * US;
    rest.idle();
  }
  return { slept, now };
}

t.test('no sleep outlasts a request that waits', async (t) => {
  const due = 5000 * US;
  const { slept, now } = firstSleep({ unheard: false, due, inflight: 0 });
  t.equal(now + slept * US, due);
  t.equal(firstSleep({ unheard: false, due: 0, inflight: 0 }).slept, 20, 'late already: the least');
  const never = Number.POSITIVE_INFINITY;
  t.equal(firstSleep({ unheard: false, due: never, inflight: 0 }).slept, -1, 'until it is woken');
  const polled = firstSleep({ unheard: true, due: 1e12, inflight: 0 }).slept;
  t.equal(polled, firstSleep({ unheard: true, due: never, inflight: 0 }).slept, 'hosts are polled');
});

t.test('a rate limit tells when it is over', async (t) => {
  const memory = makeLimits();
  const limiter = new Limiter(memory);
  // 1000 bytes a millisecond, and a transfer of ten of these.
  writeLimits(memory, { ...NO_LIMITS, rwBytes: 1_000_000 });
  const now = Float64Array.of(7.3e6);
  t.equal(limiter.admit(Op.READ, 10_000, now), true);
  t.equal(limiter.admit(Op.READ, 1, now), false);
  const due = limiter.due(now);
  t.equal(due, 17e6, 'nine milliseconds of debt, and one more');
  t.equal(limiter.admit(Op.READ, 1, Float64Array.of(due - 1)), false);
  t.equal(limiter.admit(Op.READ, 1, Float64Array.of(due)), true);
});
