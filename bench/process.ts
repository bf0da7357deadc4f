/** What a process costs the system, from /proc: processor time and wake-ups of each thread, and memory. */
import { readdirSync, readFileSync } from 'node:fs';
import { native } from '../src/native/index.ts';

export interface ThreadUsage {
  readonly name: string;
  /** Processor time since the thread began. Nanoseconds. */
  readonly cpuNs: number;
  /** Times that the thread went to sleep, and so was woken (voluntary context switches). */
  readonly sleeps: number;
}

export interface ProcessUsage {
  /** CLOCK_MONOTONIC. Nanoseconds. */
  readonly time: number;
  readonly threads: ReadonlyMap<number, ThreadUsage>;
  /** Resident bytes: all of them, those of files and shared memory (a client's pages that were touched), and the others. */
  readonly resident: number;
  readonly residentShared: number;
  readonly residentOwn: number;
}

/** Of one thread, or of all, between two samples. */
export interface Rates {
  /** Share of one processor: 0.01 is 1 %. */
  readonly cpu: number;
  readonly wakeupsPerSecond: number;
}

function field(status: string, name: string): number {
  const value = new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1];
  if (value === undefined) {
    throw new Error(`/proc/PID/status has no ${name}`);
  }
  return Number(value);
}

/** Throws ENOENT if the process is gone. */
export function sample(pid: number): ProcessUsage {
  const time = native.clock();
  const threads = new Map<number, ThreadUsage>();
  for (const tid of readdirSync(`/proc/${pid}/task`)) {
    const task = `/proc/${pid}/task/${tid}`;
    threads.set(Number(tid), {
      name: readFileSync(`${task}/comm`, 'utf8').trim(),
      // First field: time on a processor, in ns. Counted exactly, unlike the ticks of `stat`.
      cpuNs: Number(readFileSync(`${task}/schedstat`, 'utf8').split(' ')[0]),
      sleeps: field(readFileSync(`${task}/status`, 'utf8'), 'voluntary_ctxt_switches'),
    });
  }
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const [resident, own] = [field(status, 'VmRSS') * 1024, field(status, 'RssAnon') * 1024];
  return { time, threads, resident, residentOwn: own, residentShared: resident - own };
}

/** Between two samples of a process, over the threads that `wanted` accepts and that live at both times. */
export function rates(
  before: ProcessUsage,
  after: ProcessUsage,
  wanted: (name: string) => boolean = () => true,
): Rates {
  const elapsed = after.time - before.time;
  let cpuNs = 0;
  let sleeps = 0;
  for (const [tid, now] of after.threads) {
    const then = before.threads.get(tid);
    if (then !== undefined && wanted(now.name)) {
      cpuNs += now.cpuNs - then.cpuNs;
      sleeps += now.sleeps - then.sleeps;
    }
  }
  return { cpu: cpuNs / elapsed, wakeupsPerSecond: sleeps / (elapsed / 1e9) };
}

/** Threads that `workers/reactor.ts` names. */
export const isReactor = (name: string): boolean => name.startsWith('reactor_');
