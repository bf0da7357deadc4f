/**
 * autocannon in a process of its own,: sends requests until its stdin ends, and prints what it found. Options as JSON:
 * {@link HttpLoad}.
 */
import { createRequire } from 'node:module';
import { native } from '../src/native/index.ts';

export interface HttpLoad {
  readonly url: string;
  /** To run on. */
  readonly cpu?: number;
  readonly connections: number;
  /** Requests a second; 0: as many as it takes. */
  readonly rate: number;
  /** JSON to POST; GET without. */
  readonly body?: string;
}

/** Milliseconds. */
export interface HttpFigure {
  readonly requestsPerSecond: number;
  readonly p50: number;
  readonly p99: number;
}

/** The part of autocannon that is used here. */
interface Run extends Promise<Result> {
  stop(): void;
}

interface Result {
  readonly requests: { readonly total: number };
  readonly latency: { readonly p50: number; readonly p99: number };
  /** Seconds. */
  readonly duration: number;
  readonly errors: number;
  readonly non2xx: number;
}

const autocannon = createRequire(import.meta.url)('autocannon') as (options: object) => Run;

const { url, cpu, connections, rate, body } = JSON.parse(process.argv[2]) as HttpLoad;
if (cpu !== undefined) native.setAffinity([cpu]);
const run = autocannon({
  url,
  connections,
  duration: 3600,
  ...(rate > 0 && { overallRate: rate }),
  ...(body !== undefined && {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body,
  }),
});
process.stdin.resume().on('end', () => run.stop());
const { requests, latency, duration, errors, non2xx } = await run;
if (errors + non2xx > 0 || requests.total === 0) {
  throw new Error(
    `${url}: ${requests.total} requests, ${errors} errors, ${non2xx} not answered 2xx`,
  );
}
const figure: HttpFigure = {
  requestsPerSecond: requests.total / duration,
  p50: latency.p50,
  p99: latency.p99,
};
process.stdout.write(`${JSON.stringify(figure)}\n`);
