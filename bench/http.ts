/** What requests over HTTP take from the data path: IOPS with autocannon at /metrics, held against IOPS without, in turn. */
import { execFile } from 'node:child_process';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { promisify } from 'node:util';
import { serveNull } from './idle-measure.ts';
import { type Conditions, type Load, runPerf } from './load.ts';
import { median } from './stats.ts';
import { type BenchTarget, startTarget } from './target.ts';

const run = promisify(execFile);
const AUTOCANNON = createRequire(import.meta.url).resolve('autocannon/autocannon.js');
const LOAD: Load = { op: 'read', random: true, blockSize: 4096, depth: 32 };

/** A port that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') {
    throw new Error('a TCP server without a port');
  }
  return address.port;
}

interface CannonReport {
  readonly '2xx': number;
  readonly non2xx: number;
  readonly errors: number;
}

/** Requests for so many seconds, `rate` a second (0: as many as possible); rejects if one is not answered as it should be. */
async function requestMetrics(port: number, seconds: number, rate: number): Promise<void> {
  const pace = rate === 0 ? [] : ['-R', String(rate), '-c', '1'];
  const args = [
    '-j',
    '-d',
    String(Math.ceil(seconds)),
    ...pace,
    `http://127.0.0.1:${port}/metrics`,
  ];
  const { stdout } = await run(process.execPath, [AUTOCANNON, ...args]);
  const report: CannonReport = JSON.parse(stdout);
  if (report['2xx'] === 0 || report.non2xx > 0 || report.errors > 0) {
    throw new Error(`autocannon: ${stdout}`);
  }
}

async function once(target: BenchTarget, port: number, rate: number, conditions: Conditions) {
  const socket = await serveNull(target);
  const alone = (await runPerf([socket], LOAD, conditions)).total.iops;
  const duration = conditions.warmup + conditions.seconds + 1;
  const [report] = await Promise.all([
    runPerf([socket], LOAD, conditions),
    requestMetrics(port, duration, rate),
  ]);
  return 1 - report.total.iops / alone;
}

/** The share of IOPS that is lost while `rate` requests a second (0: as many as possible) ask for metrics. Median of the runs. */
export async function measureHttpLoss(
  conditions: Conditions & { readonly runs: number },
  rate: number,
): Promise<number> {
  const port = await freePort();
  const target = await startTarget({
    cpus: [conditions.reactorCpu],
    args: ['--http', `127.0.0.1:${port}`],
  });
  try {
    const losses: number[] = [];
    for (let i = 0; i < conditions.runs; i++) {
      losses.push(await once(target, port, rate, conditions));
    }
    return median(losses);
  } finally {
    await target.stop();
  }
}
