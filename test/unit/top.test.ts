/** `doorbell top`: what happened between two snapshots, and how it is drawn. */
import t from 'tap';
import { compare, type View } from '../../src/cli/top/rates.ts';
import {
  eventLine,
  latency,
  type Style,
  screenLines,
  short,
  sorted,
  tableLines,
} from '../../src/cli/top/render.ts';
import type {
  ControllerSnapshot,
  IoTotals,
  LatencyBuckets,
  Snapshot,
} from '../../src/target/snapshot.ts';
import { SGR } from '../helpers/pty.ts';

interface Counted {
  readonly reads?: number;
  readonly writes?: number;
  readonly flushes?: number;
  readonly latency?: LatencyBuckets;
  readonly errors?: Record<string, number>;
}

function io({ reads = 0, writes = 0, flushes = 0, latency = [], errors = {} }: Counted): IoTotals {
  return {
    readOps: reads,
    writeOps: writes,
    flushOps: flushes,
    otherOps: 0,
    readBytes: reads * 4096,
    writeBytes: writes * 512,
    errors,
    readLatency: latency,
    writeLatency: [],
    readLatencyNs: latency.reduce((sum, [bound, count]) => sum + bound * count, 0),
    writeLatencyNs: 0,
  };
}

function controller(counted: Counted, more: Partial<ControllerSnapshot> = {}): ControllerSnapshot {
  return {
    cntlid: 1,
    connectedAt: '2026-11-21T00:00:00.000Z',
    enabled: true,
    io: io(counted),
    namespaces: [{ nsid: 1, io: io(counted) }],
    queues: [],
    ...more,
  };
}

/** At a second of the target's life, with a bdev and a controller that counted this, and a reactor that was busy so long. */
function at(
  second: number,
  counted: Counted,
  more: { pid?: number; busy?: number; idle?: number; controller?: ControllerSnapshot | null } = {},
): Snapshot {
  const { pid = 7, busy = 0, idle = 0 } = more;
  const shown = more.controller === undefined ? controller(counted) : more.controller;
  return {
    version: '1.2.3',
    pid,
    time: new Date(second * 1000).toISOString(),
    ticks: 1e15 + second * 1e9,
    uptimeSeconds: second,
    memory: { rss: 100 * 2 ** 20, heapUsed: 0, external: 0, guestBytes: 2 ** 30 },
    reactors: [
      {
        index: 0,
        core: 1,
        alive: true,
        busyNs: busy,
        idleNs: idle,
        sleeps: 0,
        interrupts: 0,
        controllers: 1,
        queuePairs: 1,
      },
    ],
    bdevs: [
      { name: 'disk', module: 'uring', blockSize: 512, numBlocks: 8, uuid: 'u', io: io(counted) },
    ],
    subsystems: [
      {
        nqn: 'nqn.a',
        serialNumber: '1',
        modelNumber: 'm',
        namespaces: [{ nsid: 1, bdev: 'disk', uuid: 'u' }],
        listeners: [{ socket: '/run/vm0/cntrl', ...(shown !== null && { controller: shown }) }],
      },
    ],
  };
}

t.test('rates', async (t) => {
  const before = at(
    10,
    {
      reads: 100,
      latency: [
        [1000, 90],
        [2000, 10],
      ],
    },
    { busy: 10, idle: 10 },
  );
  const after = at(
    12,
    {
      reads: 300,
      writes: 50,
      flushes: 4,
      latency: [
        [1000, 90],
        [2000, 208],
        [9000, 2],
      ],
    },
    { busy: 40, idle: 20 },
  );
  const view = compare(before, after);
  t.equal(view.seconds, 2);
  const rate = {
    readIops: 100,
    writeIops: 25,
    otherIops: 2,
    iops: 127,
    readBytes: 409_600,
    writeBytes: 12_800,
    errors: 0,
    p50Ns: 2000,
    p99Ns: 2000,
  };
  t.strictSame(view.total, rate);
  t.strictSame(view.controllers[0].rate, rate);
  t.strictSame(view.controllers[0].namespaces, [{ nsid: 1, bdev: 'disk', rate }]);
  t.equal(view.reactors[0].load, 0.75);
});

t.test('p99 is that of the interval, not of all time', async (t) => {
  const before = at(1, { reads: 1000, latency: [[500, 1000]] });
  const after = at(2, {
    reads: 1004,
    latency: [
      [500, 1001],
      [1000, 1],
      [70_000, 2],
    ],
  });
  t.match(compare(before, after).total, { p50Ns: 1000, p99Ns: 70_000 });
  t.match(compare(after, { ...at(3, { reads: 1004 }), bdevs: after.bdevs }).total, {
    p50Ns: undefined,
    iops: 0,
  });
});

t.test('the first look knows no rates', async (t) => {
  const view = compare(undefined, at(5, { reads: 10 }, { busy: 5, idle: 5 }));
  t.match(view, { seconds: undefined, total: undefined });
  t.equal(view.controllers[0].rate, undefined);
  t.equal(view.reactors[0].load, undefined);
});

t.test('counters that began anew', async (t) => {
  const before = at(10, { reads: 1000, latency: [[1000, 1000]] }, { busy: 900, idle: 100 });
  // A statistic was reset: what it says was counted since.
  const reset = compare(
    before,
    at(12, { reads: 30, latency: [[1000, 30]] }, { busy: 30, idle: 10 }),
  );
  t.match(reset.total, { readIops: 15, p99Ns: 1000 });
  t.equal(reset.reactors[0].load, 0.75, 'a reactor that was replaced');
  // One counter alone gives it away: more reads than before, of another origin.
  const other = at(12, { reads: 1200, latency: [[3000, 1200]] });
  t.match(compare(before, other).total, { readIops: 600, p50Ns: 3000 });
  // Another client on the socket, whose controller has done more than the last one's.
  for (const more of [{ cntlid: 2 }, { connectedAt: '2026-11-21T00:00:11.000Z' }]) {
    const next = at(12, { reads: 1000 }, { controller: controller({ reads: 1500 }, more) });
    t.match(compare(before, next).controllers[0].rate, { readIops: 750 }, JSON.stringify(more));
  }
  // Another target.
  t.equal(compare(before, at(12, { reads: 2000 }, { pid: 8 })).total, undefined);
  t.equal(compare(before, at(9, { reads: 2000 })).total, undefined);
  t.equal(compare(before, before).total, undefined, 'no time has passed');
});

t.test('a client that has gone, and one that has come', async (t) => {
  const gone = compare(at(1, { reads: 5 }), at(2, { reads: 5 }, { controller: null }));
  t.match(gone.controllers, [{ state: 'waiting', rate: undefined }]);
  const come = compare(at(1, { reads: 5 }, { controller: null }), at(2, { reads: 9 }));
  t.match(come.controllers, [{ state: 'on', rate: { readIops: 9 } }]);
  const off = at(2, {}, { controller: controller({}, { enabled: false }) });
  t.match(compare(undefined, off).controllers, [{ state: 'off' }]);
});

const style: Style = {
  columns: 120,
  colour: false,
  sort: 'iops',
  reverse: false,
  namespaces: true,
};

function view(): View {
  const base = compare(at(1, {}), at(2, { reads: 20_000, latency: [[12_345, 20_000]] }));
  const [row] = base.controllers;
  const idle = compare(at(1, {}), at(2, { reads: 3 })).controllers[0];
  return {
    ...base,
    controllers: [
      { ...idle, socket: '/run/vm1/cntrl', outstanding: 9, entries: 64 },
      row,
      { ...row, socket: '/run/vm2/cntrl', state: 'waiting', rate: undefined },
    ],
  };
}

t.test('sorting', async (t) => {
  const names = (key: Style['sort'], reverse = false) =>
    sorted(view().controllers, key, reverse).map(({ socket }) => socket.slice(5, 8));
  t.strictSame(names('iops'), ['vm0', 'vm1', 'vm2']);
  t.strictSame(names('bandwidth'), ['vm0', 'vm1', 'vm2']);
  t.strictSame(names('latency'), ['vm0', 'vm1', 'vm2']);
  t.strictSame(names('queue'), ['vm1', 'vm0', 'vm2']);
  t.strictSame(names('name', true), ['vm2', 'vm1', 'vm0']);
});

t.test('the table', async (t) => {
  const lines = tableLines(view(), style);
  t.match(
    lines[0],
    /^CONTROLLER +IOPS +READ +WRITE +R MiB\/s +W MiB\/s +P50 +P99 +ERR\/s +QUEUED$/,
  );
  t.match(lines[1], /^\/run\/vm0\/cntrl +20\.0K +20\.0K +0 +78\.1 +0 +12\.3us +12\.3us +0 +0\/0$/);
  t.match(lines[2], /^ {2}1 disk +20\.0K/);
  t.match(lines[3], /^\/run\/vm1\/cntrl +3 .* 9\/64$/);
  t.match(lines[5], /^\/run\/vm2\/cntrl \(no client\) +- /);
  t.equal(tableLines(view(), { ...style, namespaces: false }).length, 4);
  t.match(tableLines({ ...view(), controllers: [] }, style)[1], /no subsystem/);
  const only = tableLines(view(), { ...style, filter: 'VM1' });
  t.match(only.slice(1), [/vm1/, /^ {2}1 disk/]);
  t.match(tableLines(view(), { ...style, filter: 'no such' })[1], /none has that name/);
});

t.test('the picture fits the terminal, whatever its size', async (t) => {
  const events = Array.from({ length: 40 }, (_, i) => ({
    seq: i + 1,
    time: '2026-11-21T10:11:12.000Z',
    type: 'bdev-created' as const,
    bdev: `b${i}`,
  }));
  const screen = { view: view(), events, status: 'q quit', trouble: false, help: false };
  for (const help of [false, true]) {
    for (let rows = 1; rows < 60; rows += 1) {
      for (const columns of [1, 10, 39, 40, 80, 81, 132, 300]) {
        const lines = screenLines({ ...screen, help }, rows, { ...style, columns });
        if (lines.length > rows || lines.some((line) => line.length > columns)) {
          t.fail(`${columns} x ${rows}: ${lines.length} lines`);
        }
        if (lines.at(-1) !== 'q quit'.slice(0, columns)) {
          t.fail(`${columns} x ${rows}: the last line is ${lines.at(-1)}`);
        }
      }
    }
  }
  const few = screenLines({ ...screen, events: [] }, 8, style);
  t.match(few[6], /^ {2}4 more lines$/, 'what is left out is said');
  const scrolled = screenLines({ ...screen, events: [], scroll: 2 }, 8, style);
  t.match(scrolled.slice(4, 7), [/^CONTROLLER/, /vm1/, /^ {2}4 more lines, 2 of them above$/]);
  const end = screenLines({ ...screen, events: [], scroll: 99 }, 8, style);
  t.match(end.slice(5, 7), [/vm2/, /4 of them above$/], 'no further than to the end');
  const lines = screenLines(screen, 24, style);
  t.equal(lines.length, 24);
  t.match(lines[22], /10:11:12 bdev-created +bdev=b39/, 'the newest event is the last');
  t.match(lines.join('\n'), /vm2/, 'events leave room for the table');
});

t.test('colour is extra: without it the text is the same', async (t) => {
  const strip = (text: string) => text.replace(SGR, '');
  const screen = { view: view(), events: [], status: '', trouble: true, help: false };
  const plain = screenLines(screen, 30, style);
  const coloured = screenLines(screen, 30, { ...style, colour: true });
  t.notOk(plain.join('').includes('\x1b'));
  t.ok(coloured.join('').includes('\x1b[7m'));
  t.strictSame(
    coloured.map((line) => strip(line).trimEnd()),
    plain,
  );
});

t.test('what a peer named cannot act on the terminal', async (t) => {
  const event = {
    seq: 1,
    time: '2026-11-21T10:11:12.000Z',
    type: 'error' as const,
    message: 'a\x1b[2Jb\u009bc\n',
  };
  t.equal(eventLine(event, style), '10:11:12 error                a?[2Jb?c?');
});

t.test('numbers', async (t) => {
  const shorts = [0, 5.4, 999, 999.6, 1234, 99_949, 99_951, 123_456, 999_499, 2e6, 3.21e9];
  t.strictSame(shorts.map(short), [
    ...['0', '5', '999', '1.0K', '1.2K', '99.9K'],
    ...['100K', '123K', '999K', '2.0M', '3.2G'],
  ]);
  const latencies = [undefined, 800, 12_345, 999_000, 1.5e6, 2.5e9];
  t.strictSame(latencies.map(latency), ['-', '0.8us', '12.3us', '999us', '1.5ms', '2.5s']);
});
