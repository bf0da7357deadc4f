/** `doorbell perf` as a process: its counts, its report, its verification, and what it refuses. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Ajv } from 'ajv';
import { HistogramLogReader } from 'hdr-histogram-js';
import t, { type Test } from 'tap';
import { type PerfReport, PerfReportSchema } from '../../src/cli/perf/report.ts';
import { Doorbell, doorbell, type Outcome } from '../helpers/rpc-process.ts';
import { MIB, TestTarget } from '../helpers/target.ts';
import { TargetProcess } from '../helpers/target-process.ts';

const isReport = new Ajv().compile(PerfReportSchema);
const perf = (...args: string[]): Promise<Outcome> => doorbell(['perf', ...args]);

function parse(t: Test, { code, stdout, stderr }: Outcome): PerfReport {
  t.strictSame(
    { code, stderr: stderr.replace(/^doorbell: warning: .*\n/m, '') },
    { code: 0, stderr: '' },
  );
  const report = JSON.parse(stdout);
  t.ok(isReport(report), 'the report is as its schema says', { errors: isReport.errors });
  return report;
}

t.test('a verified load over two controllers does as many commands as it says', async (t) => {
  const target = await TestTarget.start(t);
  const bdevs = [await target.malloc(4 * MIB), await target.malloc(4 * MIB, 4096)];
  const one = await target.serve(...bdevs);
  const two = await target.serve(await target.malloc(4 * MIB));
  const log = join(target.folder, 'latencies.hlog');
  const load = ['--rw', 'randrw', '--mix', '40', '--bs', '8K', '--depth', '7', '--queues', '2'];
  const run = ['--count', '5003', '--warmup', '0', '--time', '600', '--seed', '5', '--json'];
  const verify = ['--verify', '--allow-write', '--histogram', log];
  const report = parse(t, await perf(one.socket, two.socket, ...load, ...run, ...verify));
  t.equal(report.total.commands, 5003);
  t.equal(report.read.commands + report.write.commands, 5003);
  const perSocket = report.controllers.map((controller) => controller.total.commands);
  t.strictSame([...perSocket].sort(), [2501, 2502], 'half of them at each');
  const share = report.read.commands / 5003;
  t.ok(share > 0.3 && share < 0.5, `the share of reads: ${share}`);
  t.ok(report.verified > 100, `${report.verified} reads were compared`);
  const { read, write, total } = report;
  t.equal((read.latencyUs?.count ?? 0) + (write.latencyUs?.count ?? 0), total.latencyUs?.count);
  for (const { commands, latencyUs } of [read, write]) {
    if (latencyUs === null) {
      t.fail('no latencies');
      continue;
    }
    t.ok(latencyUs.count <= commands, 'commands of unknown age are left out');
    const { min, p50, p90, p99, p99_9, p99_99, max } = latencyUs;
    const sorted = [min, p50, p90, p99, p99_9, p99_99, max];
    t.strictSame(
      [...sorted].sort((a, b) => a - b),
      sorted,
      'latencies grow',
    );
  }
  t.match(report.controllers, [
    {
      socket: one.socket,
      model: 'Doorbell Controller',
      namespaces: [
        { nsid: 1, lbaBytes: 512, lbas: 8192 },
        { nsid: 2, lbaBytes: 4096, lbas: 1024 },
      ],
    },
    { socket: two.socket, namespaces: [{ nsid: 1 }] },
  ]);
  const reader = new HistogramLogReader(readFileSync(log, 'utf8'));
  for (const [tag, direction] of [
    ['read', read],
    ['write', write],
  ] as const) {
    const histogram = reader.nextIntervalHistogram();
    t.match(histogram, { tag, totalCount: direction.latencyUs?.count });
  }
});

t.test('reads need no consent, and leave a table', async (t) => {
  const target = await TestTarget.start(t);
  const { socket } = await target.serve(await target.null(MIB));
  const args = ['--time', '0.3', '--warmup', '0.1', '--bs', '128K', '--rw', 'read', '--depth', '4'];
  const { code, stdout } = await perf(socket, ...args);
  t.equal(code, 0);
  t.match(
    stdout,
    /^read, 128 KiB, depth 4, \d\.\d s\n +IOPS +MiB\/s +mean µs +p50 .* max\nread +[\d,]+ +[\d.]+ .*\n$/,
  );
  const paced = ['--rate', '2000', '--time', '1', '--warmup', '0', '--json'];
  const { total } = parse(t, await perf(socket, ...paced, '--no-latency'));
  // Fewer if the machine is busy, never more.
  t.ok(total.iops > 0 && total.iops <= 2001 + 32, `${total.iops} IOPS`);
  t.equal(total.latencyUs, null);
  const spread = parse(t, await perf(socket, '--regions', '300', '--time', '0.2', '--json'));
  t.ok(spread.total.commands > 0);
});

/** A target whose bdev gets the load of a `doorbell perf`, once that is under way. */
async function loaded(t: Test, args: readonly string[]) {
  const target = new TargetProcess(t);
  await target.start();
  await target.call('bdev_null_create', { name: 'n', num_blocks: 2048, block_size: 512 });
  const run = new Doorbell(['perf', await target.serve('n'), '--time', '600', ...args]);
  for (let reads = 0; reads === 0; ) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    const { bdevs } = (await target.call('bdev_get_iostat')) as {
      bdevs: { num_read_ops: number }[];
    };
    reads = bdevs[0].num_read_ops;
  }
  return { target, run };
}

t.test('Ctrl-C ends a load, and what was measured is reported', async (t) => {
  const { run } = await loaded(t, ['--warmup', '0']);
  run.child.kill('SIGINT');
  const { code, stdout } = await run.outcome;
  t.equal(code, 130);
  t.match(stdout, /, \d+\.\d s of \d+ s: interrupted\n/);
  t.match(stdout, /read +[1-9]/);
});

t.test('a target that dies ends the load', async (t) => {
  const { target, run } = await loaded(t, ['--warmup', '0']);
  await target.kill();
  t.match(await run.outcome, {
    code: 1,
    stdout: /^randread, 4 KiB, depth \d+, \d+\.\d s of \d+ s: the target was lost\n.+\nread +[1-9]/,
    stderr: /cntrl: the target hung up/,
  });
});

t.test('data that somebody else changes is noticed', async (t) => {
  const target = await TestTarget.start(t);
  const image = target.image(4 * MIB);
  const { socket } = await target.serve(await target.file(image));
  const load = ['--rw', 'randrw', '--verify', '--allow-write', '--time', '30', '--warmup', '0'];
  const run = new Doorbell(['perf', socket, ...load]);
  let over = false;
  void run.outcome.then(() => {
    over = true;
  });
  while (!over) {
    writeFileSync(image, Buffer.alloc(4 * MIB), { flag: 'r+' });
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  t.match(await run.outcome, {
    code: 1,
    stdout: '',
    stderr: /namespace 1: LBA \d+ should hold version \d+, and holds nothing that this run wrote/,
  });
});

t.test('what cannot be done is refused with the reason', async (t) => {
  const target = await TestTarget.start(t);
  const { socket } = await target.serve(await target.malloc(MIB, 4096));
  const folder = mkdtempSync(join(tmpdir(), 'db-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const other = join(folder, 'other');
  const server = createServer((peer) =>
    peer.on('error', () => {}).end('HTTP/1.1 400 Bad Request\r\n\r\n'),
  );
  await new Promise<void>((resolve) => server.listen(other, resolve));
  t.teardown(() => server.close());
  writeFileSync(join(folder, 'file'), '');
  const refused: [string[], RegExp, number?][] = [
    [[socket, '--rw', 'randwrite'], /overwrites data on .*: say --allow-write/, 2],
    [[socket, '--rw', 'rw', '--mix', '99'], /overwrites data/, 2],
    [[socket, '--verify'], /only what was written can be verified/, 2],
    [[socket, '--bs', '512'], /namespace 1 has blocks of 4096 bytes/],
    [[socket, '--bs', '2M'], /2097152 bytes are more than a command's 1048576/],
    [[socket, '--size', '2M'], /namespace 1 has 1048576 bytes, fewer than 2097152/],
    [[socket, '--namespace', '1', '--namespace', '2'], /no namespace 2: it has 1$/m],
    [[socket, '--queue-size', '65536'], /a queue has 4096 entries at most, and needs 65536/],
    [[socket, '--rw', 'rw', '--verify', '--allow-write', '--depth', '256'], /too few to verify/],
    [[socket, '--cpu', '4000'], /CPU 4000/, 2],
    [[join(folder, 'nothing')], /nothing: No such file/, 3],
    [[other], /other: .+/, 3],
    [[join(folder, 'file')], /file: .*refused/i, 3],
  ];
  for (const [args, reason, exitCode = 1] of refused) {
    const { code, stdout, stderr } = await perf(...args, '--time', '0.1');
    t.strictSame([code, stdout], [exitCode, ''], args.slice(1).join(' '));
    t.match(stderr, reason);
  }
  const client = await target.connect({ nqn: '', socket });
  t.match(await perf(socket), { code: 3, stderr: /is busy/ }, 'a VM is not disturbed');
  client.close();
  for (const [args, reason] of [
    [[socket, '--rw', 'erase'], /--rw/],
    [[socket, '--bs', '1000'], /--bs.*multiple of 512/],
    [[socket, '--depth', '0'], /--depth/],
    [[socket, '--time', 'x'], /--time/],
    [[], /socket/],
  ] as [string[], RegExp][]) {
    t.match(await perf(...args), { code: 2, stderr: reason });
  }
});
