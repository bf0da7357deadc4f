/** Asynchronous events: requests, events, and the silence of a type until its log page was read. NVMe Base 2.0 §5.2. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { AsyncEvents } from '../../src/nvme/events.ts';

const NOTICE = { type: 2, info: 0, logPage: 4 };
const BAD_VALUE = { type: 0, info: 1, logPage: 1 };
const BAD_REGISTER = { type: 0, info: 0, logPage: 1 };

t.test('an event meets a request, whichever comes first', async (t) => {
  const events = new AsyncEvents();
  t.equal(events.next(), undefined);
  t.ok(events.park(11));
  t.equal(events.next(), undefined);
  events.add(NOTICE);
  t.strictSame(events.next(), { cid: 11, dw0: 0x0004_0002 });
  t.equal(events.next(), undefined);
  events.add(BAD_VALUE);
  t.equal(events.next(), undefined);
  t.ok(events.park(12));
  t.strictSame(events.next(), { cid: 12, dw0: 0x0001_0100 });
});

t.test('a type is silent until its page was read', async (t) => {
  const events = new AsyncEvents();
  for (let cid = 0; cid < 4; cid++) {
    t.ok(events.park(cid));
  }
  t.notOk(events.park(4));
  events.add(BAD_VALUE);
  events.add(BAD_REGISTER);
  events.add(NOTICE);
  t.match(events.next(), { cid: 0 });
  t.strictSame(events.next(), { cid: 1, dw0: 0x0004_0002 }, 'another type has its turn');
  events.add(NOTICE);
  t.equal(events.next(), undefined);
  events.read(2);
  t.equal(events.next(), undefined, 'a page that says nothing of either');
  events.read(1);
  t.strictSame(events.next(), { cid: 2, dw0: 0x0001_0000 });
  t.equal(events.next(), undefined);
  events.read(4);
  t.strictSame(events.next(), { cid: 3, dw0: 0x0004_0002 });
});

t.test('aborted requests meet no event', async (t) => {
  const events = new AsyncEvents();
  events.park(1);
  events.park(2);
  t.notOk(events.abort(3));
  t.ok(events.abort(1));
  t.notOk(events.abort(1));
  events.add(NOTICE);
  t.match(events.next(), { cid: 2 });
  t.equal(events.nextAborted(), 1);
  t.equal(events.nextAborted(), undefined);
  events.park(5);
  t.ok(events.abort(5));
  events.reset();
  t.equal(events.nextAborted(), undefined);
  t.equal(events.next(), undefined);
});

t.test('requests taken back count until they are completed', async (t) => {
  const events = new AsyncEvents();
  for (let cid = 0; cid < 4; cid++) {
    t.ok(events.park(cid));
    t.ok(events.abort(cid));
  }
  t.notOk(events.park(4), 'or a host that never consumes could add to them for ever');
  t.ok(events.ready);
  t.equal(events.nextAborted(), 0);
  t.ok(events.park(4));
});

t.test('no event is lost, and no request is used twice', async () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('park' as const) }),
    fc.record({ kind: fc.constant('abort' as const), back: fc.nat(4) }),
    fc.record({
      kind: fc.constant('add' as const),
      event: fc.constantFrom(NOTICE, BAD_VALUE, BAD_REGISTER),
    }),
    fc.record({ kind: fc.constant('read' as const), page: fc.constantFrom(1, 4) }),
  );
  const property = fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
    const events = new AsyncEvents();
    const parked = new Set<number>();
    /** Events that happened and were not told since. */
    const owed = new Set<typeof NOTICE>();
    let cid = 0;
    const take = (): void => {
      for (let next = events.next(); next !== undefined; next = events.next()) {
        const { dw0 } = next;
        assert.ok(parked.delete(next.cid), 'a request that waits');
        const told = [...owed].find(
          ({ type, info, logPage }) => dw0 === (type | (info << 8) | (logPage << 16)),
        );
        assert.ok(told !== undefined && owed.delete(told), 'an event that happened');
      }
    };
    for (const step of steps) {
      switch (step.kind) {
        case 'park':
          if (events.park(cid)) {
            parked.add(cid);
          } else {
            assert.equal(parked.size, 4);
          }
          cid += 1;
          break;
        case 'abort': {
          const wanted = cid - 1 - step.back;
          assert.equal(events.abort(wanted), parked.delete(wanted));
          break;
        }
        case 'add':
          events.add(step.event);
          owed.add(step.event);
          break;
        case 'read':
          events.read(step.page);
          break;
      }
      while (events.nextAborted() !== undefined) {}
      take();
      assert.equal(events.ready, false);
    }
    // A host that goes on reading and asking is told everything.
    for (let i = 0; i < 4; i++) {
      events.read(1);
      events.read(4);
      if (events.park(cid)) {
        parked.add(cid);
      }
      cid += 1;
      take();
    }
    assert.equal(owed.size, 0);
  });
  fc.assert(property, { numRuns: 300 });
});
