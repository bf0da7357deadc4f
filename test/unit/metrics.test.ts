/** The metrics as text: exact buckets, escaped labels, both formats, what promtool says, and what docs/monitoring.md says of them. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { FAMILIES } from '../../src/http/families.ts';
import type { MetricsState } from '../../src/http/family.ts';
import { renderMetrics } from '../../src/http/metrics.ts';
import type { IoTotals } from '../../src/target/snapshot.ts';

/** What src/setup/promtool.mjs left, the document and the examples: seen from dist/test/unit. */
const PROMTOOL = new URL('../../promtool.json', import.meta.url);
const ALERTS = new URL('../../../config/prometheus-alerts.yml', import.meta.url);
const CONFIG = new URL('../../../config/prometheus.yml', import.meta.url);
const GRAFANA = new URL('../../../config/grafana-dashboard.json', import.meta.url);
const DOCUMENT = new URL('../../../docs/monitoring.md', import.meta.url);

const NQN = 'nqn.2026-11.io.example:"vm"\\0';

const io: IoTotals = {
  readOps: 10,
  writeOps: 20,
  flushOps: 3,
  otherOps: 4,
  readBytes: 40960,
  writeBytes: 2 ** 53 - 1,
  errors: { '0x281': 5, '0x80': 1 },
  readLatency: [
    [1000, 1],
    [1024, 2],
    [1040, 4],
    [2048, 8],
    [17_179_869_184, 16],
    [30_000_000_000, 32],
  ],
  writeLatency: [],
  readLatencyNs: 1_500_000_000,
  writeLatencyNs: 0,
};

const queue = {
  qid: 1,
  cqid: 1,
  reactor: 0,
  size: 128,
  head: 1,
  tail: 33,
  outstanding: 32,
  cqSize: 128,
  cqHead: 0,
  cqTail: 0,
  interrupts: true,
  vector: 1,
};

const state: MetricsState = {
  calls: new Map([
    ['bdev_get_bdevs', { calls: 7, errors: 2 }],
    ['', { calls: 1, errors: 1 }],
  ]),
  snapshot: {
    version: '1.2.3',
    pid: 1,
    time: '2026-11-21T00:00:00.000Z',
    ticks: 1,
    uptimeSeconds: 1,
    memory: { rss: 1000, heapUsed: 100, external: 10, guestBytes: 2 ** 31 },
    reactors: [
      {
        index: 0,
        core: 3,
        alive: true,
        busyNs: 1_500_000_000,
        idleNs: 2e9,
        sleeps: 5,
        interrupts: 6,
        controllers: 1,
        queuePairs: 2,
      },
    ],
    bdevs: [
      {
        name: 'b',
        module: 'uring',
        blockSize: 512,
        numBlocks: 8,
        uuid: '',
        server: { connections: 2, reconnects: 3, requests: 400, inFlight: 5 },
        io,
      },
    ],
    subsystems: [
      {
        nqn: NQN,
        serialNumber: 'S',
        modelNumber: 'M',
        namespaces: [{ nsid: 1, bdev: 'b', uuid: '' }],
        listeners: [
          {
            socket: '/run/vm0/cntrl',
            controller: {
              cntlid: 1,
              connectedAt: '',
              enabled: true,
              io,
              namespaces: [{ nsid: 1, io }],
              queues: [queue, { ...queue, qid: 2, outstanding: 1 }],
            },
          },
          { socket: '/run/vm1/cntrl' },
        ],
      },
    ],
  },
};

/** Lines of a metric, without its labels that all have. */
async function lines(name: string): Promise<string[]> {
  const { text } = await renderMetrics(state);
  return text.split('\n').filter((line) => line.startsWith(name));
}

t.test('counts, with their labels', async (t) => {
  const vm0 = 'nqn="nqn.2026-11.io.example:\\"vm\\"\\\\0",socket="/run/vm0/cntrl"';
  t.strictSame(await lines('doorbell_namespace_ops_total'), [
    `doorbell_namespace_ops_total{${vm0},nsid="1",bdev="b",op="read"} 10`,
    `doorbell_namespace_ops_total{${vm0},nsid="1",bdev="b",op="write"} 20`,
    `doorbell_namespace_ops_total{${vm0},nsid="1",bdev="b",op="flush"} 3`,
    `doorbell_namespace_ops_total{${vm0},nsid="1",bdev="b",op="other"} 4`,
  ]);
  t.strictSame(await lines('doorbell_bdev_bytes_total'), [
    'doorbell_bdev_bytes_total{bdev="b",module="uring",op="read"} 40960',
    'doorbell_bdev_bytes_total{bdev="b",module="uring",op="write"} 9007199254740991',
  ]);
  t.strictSame(await lines('doorbell_bdev_errors_total'), [
    'doorbell_bdev_errors_total{bdev="b",module="uring",status="0x281"} 5',
    'doorbell_bdev_errors_total{bdev="b",module="uring",status="0x80"} 1',
  ]);
  t.match(await lines('doorbell_controller_connected'), [/vm0\/cntrl"} 1$/, /vm1\/cntrl"} 0$/]);
  for (const [name, value] of [
    ['doorbell_controller_queues', `{${vm0}} 2`],
    ['doorbell_controller_queue_entries', `{${vm0}} 256`],
    ['doorbell_controller_outstanding_commands', `{${vm0}} 33`],
    ['doorbell_bdev_size_bytes', '{bdev="b",module="uring"} 4096'],
    ['doorbell_bdev_server_connections', '{bdev="b",module="uring"} 2'],
    ['doorbell_bdev_server_reconnects_total', '{bdev="b",module="uring"} 3'],
    ['doorbell_bdev_server_requests_total', '{bdev="b",module="uring"} 400'],
    ['doorbell_bdev_server_unanswered_requests', '{bdev="b",module="uring"} 5'],
    ['doorbell_reactor_busy_seconds_total', '{reactor="0",core="3"} 1.5'],
    ['doorbell_guest_memory_bytes', ' 2147483648'],
    ['doorbell_build_info', `{version="1.2.3",node="${process.versions.node}"} 1`],
  ]) {
    t.strictSame(await lines(name), [`${name}${value}`]);
  }
  t.strictSame(await lines('doorbell_rpc_errors_total'), [
    'doorbell_rpc_errors_total{method="bdev_get_bdevs"} 2',
    'doorbell_rpc_errors_total{method="unknown"} 1',
  ]);
});

t.test('latencies: cumulative, in seconds, nothing lost', async (t) => {
  const read = (await lines('doorbell_bdev_latency_seconds')).filter((line) =>
    line.includes('op="read"'),
  );
  const bucket = (le: string): number => {
    const line = read.find((text) => text.includes(`le="${le}"`)) ?? '';
    return Number(line.slice(line.lastIndexOf(' ')));
  };
  t.equal(bucket('0.000001024'), 3);
  t.equal(bucket('0.000002048'), 15);
  t.equal(bucket('8.589934592'), 15);
  t.equal(bucket('17.179869184'), 31);
  t.equal(bucket('+Inf'), 63);
  t.match(read.at(-1), /^doorbell_bdev_latency_seconds_count\{.*\} 63$/);
  t.match(read.at(-2), /^doorbell_bdev_latency_seconds_sum\{.*\} 1\.5$/);
  t.equal(read.length, 25 + 3);
});

t.test('OpenMetrics, for those who ask', async (t) => {
  const accept = 'application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5';
  const { type, text } = await renderMetrics(state, accept);
  t.equal(type, 'application/openmetrics-text; version=1.0.0; charset=utf-8');
  t.match(text, /# TYPE doorbell_bdev_ops counter\ndoorbell_bdev_ops_total\{/);
  t.ok(text.endsWith('\n# EOF\n'));
  t.notMatch(text, '\n\n');
  const plain = await renderMetrics(state, 'text/plain');
  t.equal(plain.type, 'text/plain; version=0.0.4; charset=utf-8');
  t.match(plain.text, '# TYPE doorbell_bdev_ops_total counter\n');
});

t.test('an empty target', async (t) => {
  const { text } = await renderMetrics({
    calls: new Map(),
    snapshot: { ...state.snapshot, reactors: [], bdevs: [], subsystems: [] },
  });
  t.match(text, /^doorbell_guest_memory_bytes 2147483648$/m);
  t.notMatch(text, /NaN|undefined/);
});

t.test('the table in the document is what there is', async (t) => {
  const { text } = await renderMetrics(state);
  const labels = (name: string): string => {
    const line = new RegExp(`^${name}(?:_bucket)?\\{(.*)\\} `, 'm').exec(text)?.[1] ?? '';
    const names = [...line.matchAll(/(\w+)="/g)].map(([, label]) => label);
    return names.filter((label) => label !== 'le').join(' ');
  };
  const rows = FAMILIES.map(
    ({ name, type, help }) => `| \`${name}\` | ${type} | ${labels(name)} | ${help} |`,
  );
  const document = readFileSync(DOCUMENT, 'utf8');
  t.strictSame(document.match(/^\| `(?:doorbell|process)_.*$/gm), rows);
  const examples = document.slice(0, document.indexOf('## Events')) + readFileSync(ALERTS, 'utf8');
  for (const [name] of examples.matchAll(/\b(?:doorbell|process)_[a-z_]+\b/g)) {
    const family = name.replace(/_(?:bucket|sum|count)$/, '');
    t.ok(
      FAMILIES.some((known) => known.name === name || known.name === family),
      name,
    );
  }
});

interface Panel {
  readonly title: string;
  readonly gridPos: {
    readonly x: number;
    readonly y: number;
    readonly w: number;
    readonly h: number;
  };
  readonly targets: readonly { readonly expr: string; readonly legendFormat: string }[];
}

const grafanaPanels = (): readonly Panel[] =>
  (JSON.parse(readFileSync(GRAFANA, 'utf8')) as { panels: readonly Panel[] }).panels;

t.test('the dashboard for Grafana shows metrics and labels that there are', async (t) => {
  const panels = grafanaPanels();
  const table = readFileSync(DOCUMENT, 'utf8').matchAll(/^\| `(\w+)` \| \w+ \| ([^|]*) \|/gm);
  const documented = new Map([...table].map(([, name, labels]) => [name, labels.split(' ')]));
  const places = new Set<string>();
  for (const { title, gridPos, targets } of panels) {
    for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
      for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
        t.notOk(places.has(`${x} ${y}`) || x >= 24, `${title}: covers no other`);
        places.add(`${x} ${y}`);
      }
    }
    for (const { expr, legendFormat } of targets) {
      const labels = new Set(['instance', 'job', 'le']);
      for (const [name] of expr.matchAll(/\b(?:doorbell|process)_[a-z_]+\b/g)) {
        const family = name.replace(/_(?:bucket|sum|count)$/, '');
        const known = FAMILIES.find((each) => each.name === name || each.name === family);
        t.ok(known, `${title}: ${name}`);
        for (const label of documented.get(known?.name ?? '') ?? []) {
          labels.add(label);
        }
      }
      const used = [
        ...legendFormat.matchAll(/\{\{(\w+)\}\}/g),
        ...expr.matchAll(/\bby \(([^)]*)\)/g),
        ...expr.matchAll(/(\w+)(?==~?")/g),
      ].flatMap(([, names]) => names.split(', '));
      t.ok(
        used.every((label) => labels.has(label)),
        `${title}: ${used.join(' ')}`,
      );
    }
  }
});

t.test('promtool finds nothing to complain about', async (t) => {
  const found = existsSync(PROMTOOL) ? JSON.parse(readFileSync(PROMTOOL, 'utf8')) : {};
  if (found.path === undefined || !existsSync(found.path)) {
    t.skip(found.unavailable ?? 'no promtool: run node src/setup/prepare.mjs test');
    return;
  }
  const check = (input: string) =>
    spawnSync(found.path, ['check', 'metrics'], { input, encoding: 'utf8' });
  const { text } = await renderMetrics(state);
  t.match(check(text), { status: 0, stdout: '', stderr: '' });
  const config = spawnSync(found.path, ['check', 'config', fileURLToPath(CONFIG)]);
  t.equal(config.status, 0, `the configuration and the alerts: ${config.stdout}${config.stderr}`);
  const rules = grafanaPanels().flatMap(({ targets }) =>
    targets.map(({ expr }, i) => ({
      record: `panel:${i}`,
      expr: expr.replaceAll('$__rate_interval', '1m').replaceAll('$instance', '.*'),
    })),
  );
  const file = join(t.testdir(), 'rules.json');
  writeFileSync(file, JSON.stringify({ groups: [{ name: 'grafana', rules }] }));
  const queries = spawnSync(found.path, ['check', 'rules', '--lint=none', file]);
  t.equal(queries.status, 0, `the queries of the dashboard: ${queries.stdout}${queries.stderr}`);
  const bad = check('# TYPE doorbell_ops counter\ndoorbell_ops 1\n');
  t.match(bad, { status: 3, stderr: /_total/ }, 'it does look');
});
