/** The benches run: a short one of each kind, its results as a file, its charts. Not how fast anything is. */
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import type { BenchResults } from '../../bench/report.ts';

const run = promisify(execFile);

/** In a folder of its own, where it leaves its results. */
function bench(t: Test) {
  const cwd = mkdtempSync(join(tmpdir(), 'db-'));
  t.teardown(() => rmSync(cwd, { recursive: true, force: true }));
  return {
    file: (name: string) => join(cwd, 'bench/results', name),
    run: (script: string, ...args: string[]) =>
      run(
        process.execPath,
        [fileURLToPath(new URL(`../../bench/${script}.js`, import.meta.url)), ...args],
        { cwd },
      ),
  };
}

t.test('npm run bench', async (t) => {
  const { run, file } = bench(t);
  const only = [
    '--only',
    'null-latency,ram-write,file-read-4k-1,namespaces,start',
    '--seconds',
    '0.1',
  ];
  const first = await run('bench', '--quick', ...only);
  t.match(first.stdout, /^null-latency .* of echo .*\(met|missed\)/m);
  t.match(first.stdout, /^start .* ms /m);
  const results: BenchResults = JSON.parse(readFileSync(file('bench.json'), 'utf8'));
  t.match(results.machine, { cores: Number, node: process.version, kernel: /^\d+\.\d+$/ });
  t.strictSame(
    results.scenarios.map(({ name, iops, runs }) => [name, iops > 0, runs.length]),
    ['null-latency', 'ram-write-4k-32', 'file-read-4k-1'].map((name) => [name, true, 1]),
  );
  t.ok((results.scenarios[0].latencyUs?.p50 ?? 0) > 0);
  t.ok((results.scenarios[1].ratio ?? 0) > 0, 'held against a plain copy');
  t.strictSame(
    results.curves.map(({ name, points }) => [name, points.length]),
    [['namespaces', 6]],
  );
  t.ok(existsSync(file('namespaces.svg')) && existsSync(file('ratios.svg')));
  t.notOk(existsSync(file('disk.img')), 'the file that was measured is gone');
  const compare = ['--compare', file('bench.json')];
  const second = await run('bench', '--quick', '--only', 'start', ...compare);
  t.match(second.stdout, /against .*\n.*then.*\nstart +\d+ +\d+/);
  await t.rejects(run('bench', '--runs', '0'), /--runs and --seconds/);
});

t.test('npm run bench:idle', async (t) => {
  const { run, file } = bench(t);
  const short = ['--seconds', '0.2', '--pauses', '5', '--depths', '1,8', '--controllers', '1,3'];
  const { stdout } = await run('idle', ...short);
  t.match(stdout, /controllers .*\n +1 .*\n +3 .*\ndepth 1: [\d.]+ interrupts/);
  const { idle, interrupts } = JSON.parse(readFileSync(file('idle.json'), 'utf8'));
  t.match(idle, [{ controllers: 1, first: { p50: Number } }, { controllers: 3 }]);
  t.ok(interrupts[0].iops > 0 && interrupts[0].perCommand > 0);
});

t.test('npm run bench:turn', async (t) => {
  const { run, file } = bench(t);
  const { stdout } = await run('turn', '--rounds', '1', '--seconds', '0.02');
  t.match(stdout, /^null-read-4k-1 +[\d.]+ /m);
  const { results } = JSON.parse(readFileSync(file('turn.json'), 'utf8'));
  t.equal(results.length, 4);
  for (const { name, ns } of results) {
    t.ok(ns.length === 1 && ns[0] > 0, name);
  }
});

t.test('npm run bench:flush', async (t) => {
  const { run, file } = bench(t);
  const { stdout } = await run('flush', '--runs', '1', '--seconds', '0.2', '--jobs', '2');
  t.match(stdout, /^write, then Flush .*\nwrite with FUA .* (of|no) fio/m);
  const { figures } = JSON.parse(readFileSync(file('flush.json'), 'utf8'));
  t.ok(figures.flush[0] > 0 && figures.fua[0] > 0);
  t.notOk(existsSync(file('flush.img')), 'the file that was measured is gone');
});
