/** The list of events: numbers, the ring, listeners, and the bound on what one guest may cause. */
import { pino } from 'pino';
import t from 'tap';
import {
  EVENT_TYPES,
  EVENTS_KEPT,
  guestEvents,
  type TargetEvent,
  TargetEvents,
} from '../../src/target/events.ts';

const NQN = 'nqn.2026-11.io.doorbell:s';
const WHERE = { nqn: NQN, socket: '/run/x/cntrl' };

function quiet(): { events: TargetEvents; lines: string[] } {
  const lines: string[] = [];
  const log = pino({}, { write: (line: string) => lines.push(line) });
  return { events: new TargetEvents(log), lines };
}

t.test('events have numbers and times, and are kept', async (t) => {
  const { events } = quiet();
  t.equal(events.last, 0);
  t.strictSame(events.since(), []);
  events.emit({ type: 'bdev-created', bdev: 'a' });
  events.emit({ type: 'bdev-deleted', bdev: 'a' });
  t.match(events.since(), [
    { seq: 1, type: 'bdev-created', bdev: 'a', time: /^\d{4}-\d\d-\d\dT[\d:.]+Z$/ },
    { seq: 2, type: 'bdev-deleted' },
  ]);
  t.match(events.since(1), [{ seq: 2 }]);
  t.strictSame(events.since(2), []);
  for (let i = 0; i < 2 * EVENTS_KEPT; i++) {
    events.emit({ type: 'bdev-created', bdev: `b${i}` });
  }
  const kept = events.since();
  t.equal(kept.length, EVENTS_KEPT, 'the last ones');
  t.equal(kept.at(-1)?.seq, 2 + 2 * EVENTS_KEPT);
  t.equal(kept[0].seq, 3 + EVENTS_KEPT);
});

t.test('listeners: told until they leave, whatever another one does', async (t) => {
  const { events, lines } = quiet();
  const seen: TargetEvent[] = [];
  const listener = (event: TargetEvent): void => {
    seen.push(event);
  };
  const leaves = [events.subscribe(listener), events.subscribe(listener)];
  events.subscribe(() => {
    throw new Error('a broken listener');
  });
  events.emit({ type: 'subsystem-created', nqn: NQN });
  t.equal(seen.length, 2, 'one subscribed twice');
  t.match(lines, [/a broken listener/], 'which is logged');
  leaves[0]();
  leaves[0]();
  events.emit({ type: 'subsystem-deleted', nqn: NQN });
  t.equal(seen.length, 3);
  leaves[1]();
  events.emit({ type: 'subsystem-created', nqn: NQN });
  t.equal(seen.length, 3);

  const stop = events.subscribe(() => stop());
  events.subscribe(listener);
  events.emit({ type: 'subsystem-deleted', nqn: NQN });
  t.equal(seen.length, 4, 'one that leaves while it is told does not keep others from being told');
});

t.test('a guest that makes events all the time', async (t) => {
  const { events } = quiet();
  const emit = guestEvents(events, WHERE);
  const other = guestEvents(events, { ...WHERE, nqn: `${NQN}2` });
  for (let i = 0; i < 1000; i++) {
    emit({ type: 'controller-enabled', ...WHERE });
  }
  const told = events.since().length;
  t.ok(told >= 64 && told < 200, `${told} of 1000 are told`);
  other({ type: 'guest-reset', ...WHERE, nqn: `${NQN}2` });
  t.match(events.since().at(-1), { type: 'guest-reset' }, 'others are not affected');
  while (events.since(told + 1).length === 0) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    emit({ type: 'controller-disabled', ...WHERE });
  }
  t.match(events.since(told + 1), [
    { type: 'error', ...WHERE, message: /^\d+ events of this guest were left out/ },
    { type: 'controller-disabled' },
  ]);
});

t.test('the list of types is complete', async (t) => {
  t.equal(new Set(EVENT_TYPES).size, 22);
});
