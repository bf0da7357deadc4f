/** The arithmetic of the dashboard, which runs in a browser and needs none: histograms, rates, history, figures as text. */
import fc from 'fast-check';
import t from 'tap';
import * as target from '../../src/target/events.ts';

type Buckets = [number, number][];
type Rates = {
  readOps: number;
  readBytes: number;
  latency: Buckets;
  errors: Map<string, number>;
};

/** A module of the page, from dist/test/unit. Not compiled, so its types are said here. */
const load = async <Module>(name: string): Promise<Module> =>
  (await import(new URL(`../../../src/http/dashboard/${name}.js`, import.meta.url).href)) as Module;

const { add, subtract, percentiles, heatRows, heatBound, HEAT_ROWS } = await load<{
  add(a: Buckets, b: Buckets): Buckets;
  subtract(before: Buckets, after: Buckets): Buckets;
  percentiles(buckets: Buckets, shares: number[]): (number | undefined)[];
  heatRows(buckets: Buckets): Uint32Array;
  heatBound(row: number): number;
  HEAT_ROWS: number;
}>('latency');
const { ratesBetween, ALL, diskKey, vmKey } = await load<{
  ratesBetween(before: object, after: object): Map<string, Rates>;
  ALL: string;
  diskKey(name: string): string;
  vmKey(nqn: string, socket: string): string;
}>('rates');
const { findAlerts } = await load<{
  findAlerts(model: object): { level: string; text: string }[];
}>('alerts');
const { History, HISTORY_POINTS } = await load<{
  History: new () => {
    push(time: number, rates: Map<string, object> | undefined): void;
    times(seconds: number): number[];
    column(key: string, column: string, seconds: number): (number | null)[];
    size: number;
  };
  HISTORY_POINTS: number;
}>('history');
const format = await load<{
  count(value?: number): string;
  bytes(value?: number): string;
  latency(value?: number): string;
  exact(value: number): string;
  duration(seconds: number): string;
  shortNqn(nqn: string): string;
  parseSize(text: string): number;
}>('format');

const BOUNDS = [1000, 1500, 4000, 64_000, 1e6, 7e9];
const histogram = fc
  .array(fc.nat(50), { minLength: BOUNDS.length, maxLength: BOUNDS.length })
  .map((counts) => counts.flatMap((n, i): Buckets => (n === 0 ? [] : [[BOUNDS[i], n]])));

t.test('what came to a histogram is what was added to it', async (t) => {
  fc.assert(
    fc.property(histogram, histogram, (before, more) => {
      return JSON.stringify(subtract(before, add(before, more))) === JSON.stringify(more);
    }),
  );
  t.strictSame(subtract([[1000, 5]], [[1500, 2]]), [[1500, 2]], 'it was reset');
  t.strictSame(subtract([[1000, 5]], [[1000, 2]]), [[1000, 2]], 'it was reset');
  t.strictSame(subtract([[1000, 5]], []), []);
});

t.test('percentiles are the bounds that so many were below', async (t) => {
  fc.assert(
    fc.property(histogram, fc.double({ min: 0, max: 1, noNaN: true }), (buckets, share) => {
      const samples = buckets.flatMap(([bound, n]) => new Array<number>(n).fill(bound));
      const rank = Math.max(Math.ceil(share * samples.length - 1e-9), 1);
      return percentiles(buckets, [share])[0] === samples[rank - 1];
    }),
  );
  t.strictSame(
    percentiles(
      [
        [5, 99],
        [9, 1],
      ],
      [0.5, 0.99, 0.999],
    ),
    [5, 5, 9],
  );
  t.strictSame(percentiles([], [0.5, 0.99]), [undefined, undefined]);
});

t.test('the heat map loses no command, and each is in its row', async (t) => {
  fc.assert(
    fc.property(histogram, (buckets) => {
      const pairs = [...heatRows(buckets)];
      const total = pairs.reduce((sum, value, i) => sum + (i % 2 === 1 ? value : 0), 0);
      return total === buckets.reduce((sum, [, n]) => sum + n, 0);
    }),
  );
  for (const ns of [1001, 1414, 5_000, 123_456, 9_999_999]) {
    const [row] = heatRows([[ns, 1]]);
    t.ok(heatBound(row - 1) < ns && ns <= heatBound(row) * 1.000001, `${ns} ns in row ${row}`);
  }
  t.strictSame([...heatRows([[1, 1]])], [0, 1]);
  t.strictSame([...heatRows([[1e15, 1]])], [HEAT_ROWS - 1, 1]);
});

const io = (readOps: number, extra: object = {}) => ({
  readOps,
  writeOps: 0,
  flushOps: 0,
  otherOps: 0,
  readBytes: readOps * 4096,
  writeBytes: 0,
  errors: {},
  readLatency: readOps === 0 ? [] : [[1000, readOps]],
  writeLatency: [],
  ...extra,
});
const disk = (name: string, readOps: number, extra = {}) => ({
  name,
  uuid: name,
  io: io(readOps, extra),
});
const state = (seconds: number, bdevs: object[], subsystems: object[] = []) => ({
  ticks: seconds * 1e9,
  bdevs,
  subsystems,
});

t.test('rates are differences; what is new began at 0; what was reset, too', async (t) => {
  const before = state(10, [
    disk('a', 100, { errors: { '0x281': 1 } }),
    disk('b', 500),
    disk('gone', 9),
  ]);
  const after = state(12, [
    disk('a', 300, { errors: { '0x281': 4 } }),
    disk('b', 40),
    disk('new', 6),
  ]);
  const rates = ratesBetween(before, after);
  t.equal(rates.get(diskKey('a'))!.readOps, 100);
  t.equal(rates.get(diskKey('a'))!.readBytes, 409_600);
  t.strictSame([...rates.get(diskKey('a'))!.errors], [['0x281', 3]]);
  t.equal(rates.get(diskKey('b'))!.readOps, 20);
  t.equal(rates.get(diskKey('new'))!.readOps, 3);
  t.notOk(rates.has(diskKey('gone')));
  t.equal(rates.get(ALL)!.readOps, 123);
  t.strictSame(rates.get(ALL)!.latency, [[1000, 246]]);
  t.equal(ratesBetween(after, after).size, 0, 'no time has passed');

  const vm = (connectedAt: string, readOps: number) => [
    {
      nqn: 'n',
      listeners: [{ socket: 's', controller: { connectedAt, io: io(readOps), namespaces: [] } }],
    },
  ];
  const again = ratesBetween(state(1, [], vm('1', 10)), state(2, [], vm('2', 30)));
  t.equal(again.get(vmKey('n', 's'))!.readOps, 30, 'another connection counts from 0');
});

t.test('the history is a ring, with gaps where nothing is known', async (t) => {
  const history = new History();
  const rates = (readOps: number) => new Map([['k', { readOps, latency: [] }]]);
  for (let i = 1; i <= HISTORY_POINTS + 50; i++) {
    history.push(i, i === HISTORY_POINTS + 48 ? undefined : rates(i));
  }
  t.equal(history.times(1e9).length, HISTORY_POINTS);
  t.strictSame(history.times(3), [648, 649, 650]);
  t.strictSame(history.column('k', 'readOps', 3), [null, 649, 650]);
  t.strictSame(history.column('k', 'p99', 2), [null, null]);
  t.strictSame(history.column('other', 'readOps', 2), [null, null]);
  history.push(651, new Map());
  t.equal(history.size, 0, 'what is gone is forgotten');
});

t.test('figures have three digits and a unit', async (t) => {
  const plain = (text: string) => text.replaceAll('\u202f', ' ');
  t.strictSame(
    [0, 7, 0.25, 999, 999.6, 1000, 12_345, 999_499, 999_501, 1e9].map((n) =>
      plain(format.count(n)),
    ),
    ['0', '7', '0.30', '999', '1.00 k', '1.00 k', '12.3 k', '999 k', '1.00 M', '1.00 G'],
  );
  t.strictSame(
    [0, 512, 1023, 1024, 10 * 1024, 2 ** 40].map((n) => plain(format.bytes(n))),
    ['0 B', '512 B', '1023 B', '1.00 KiB', '10.0 KiB', '1.00 TiB'],
  );
  t.strictSame(
    [80, 2500, 3.2e6, 4e9].map((n) => plain(format.latency(n))),
    ['80 ns', '2.50 µs', '3.20 ms', '4.00 s'],
  );
  t.equal(format.count(undefined), '–');
  t.equal(plain(format.exact(1_234_567)), '1 234 567');
  t.strictSame(
    [0, 61, 3600, 90_061].map((n) => plain(format.duration(n))),
    ['0 s', '1 min 1 s', '1 h 0 min', '1 d 1 h'],
  );
  t.strictSame(['nqn.2026-11.io.x:vm', 'nqn.2026-11.io.x:', 'x'].map(format.shortNqn), [
    'vm',
    'nqn.2026-11.io.x:',
    'x',
  ]);
});

t.test('the page listens to every event there is', async (t) => {
  const { EVENT_TYPES } = await load<{ EVENT_TYPES: string[] }>('stream');
  t.strictSame([...EVENT_TYPES, 'error'].sort(), [...target.EVENT_TYPES].sort());
});

t.test('sizes are read as people write them', async (t) => {
  const sizes = {
    '512M': 2 ** 29,
    '20 GiB': 20 * 2 ** 30,
    '1.5t': 1.5 * 2 ** 40,
    '4096': 4096,
    ' 1kb ': 1024,
  };
  for (const [text, bytes] of Object.entries(sizes)) {
    t.equal(format.parseSize(text), bytes, text);
  }
  for (const text of ['', '0', 'many', '-1G', '1G2', '1e9', '99999999T']) {
    t.throws(() => format.parseSize(text), /A size is a number with a unit/, text);
  }
});

t.test('a disk that failed is told of, also when its VM has left within the second', async (t) => {
  const snapshot = { time: '2026-11-29T12:00:00Z', reactors: [], bdevs: [], subsystems: [] };
  const failure = {
    type: 'error',
    nqn: 'nqn.2026-11.io.example:web',
    bdev: 'disk',
    message: 'read at LBA 0 failed',
  };
  const alertsAt = (time: string) =>
    findAlerts({ snapshot, errors: [], loads: new Map(), events: [{ ...failure, time }] });
  t.match(alertsAt('2026-11-29T11:59:30Z'), [
    { level: 'warning', text: /disk disk: read at LBA 0 failed/ },
  ]);
  t.strictSame(alertsAt('2026-11-29T11:58:30Z'), []);
});
