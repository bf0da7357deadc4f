/**
 * Device Self-test: every namespace is asked for a sync, then blocks are read and verified; all of them, or a sample. In the background, in
 * steps with pauses as long as the steps before, so that a test takes half of a disk's time at most. NVMe Base 2.0 §5.9, §5.16.1.7, §8.6. Owned
 * by main.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Op } from '../bdev/op.ts';
import { SelfTestCode } from '../spec/admin.ts';
import {
  SELF_TEST_RESULTS,
  SelfTestEnd,
  SelfTestLog,
  SelfTestResult,
  SelfTestStatus,
  SelfTestValid,
} from '../spec/logs.ts';
import { Status, StatusField } from '../spec/nvme.ts';
import type { ControllerHost, Operate } from './host.ts';
import type { Namespace } from './namespace.ts';

/** Verified at a time. Bytes. */
const STEP_BYTES = 1024 * 1024;
/** Steps of a namespace in a short test. */
const SAMPLES = 64;
/** The first segment of a test is about files being synced, the second about blocks. */
const Segment = { SYNC: 1, BLOCKS: 2 } as const;

/** What an extended test is assumed to read in a minute, pauses included. Bytes. */
const BYTES_PER_MINUTE = 10 * 1024 ** 3;
const MAX_MINUTES = 0xffff;

/** EDSTT: how long an extended test of all namespaces takes, about. Minutes. */
export function selfTestMinutes({ namespaces }: ControllerHost): number {
  const bytes = [...namespaces.values()].map(({ blockSize, numBlocks }) => blockSize * numBlocks);
  const minutes = Math.ceil(bytes.reduce((sum, each) => sum + each, 0) / BYTES_PER_MINUTE);
  return Math.min(MAX_MINUTES, Math.max(1, minutes));
}

interface Failure {
  readonly segment: number;
  readonly nsid: number;
  readonly flba?: number;
  readonly status: number;
}

/** A test that is over. */
interface Ended {
  readonly code: number;
  readonly end: number;
  readonly poh: number;
  readonly failure: Failure | undefined;
}

/** A test under way. */
class Run {
  readonly code: number;
  readonly nsids: readonly number[];
  /** Steps that are done, and all. */
  done = 0;
  steps = 1;
  /** It is to end like this; undefined: when it is through. */
  stop: number | undefined;

  constructor(code: number, nsids: readonly number[]) {
    this.code = code;
    this.nsids = nsids;
  }
}

export class SelfTests {
  readonly #host: ControllerHost;
  readonly #powerOnHours: () => number;
  #run: Run | undefined;
  /** A run is being carried out; one that was stopped is until what it waits for has answered. */
  #isWorking = false;
  readonly #ended: Ended[] = [];

  constructor(host: ControllerHost, powerOnHours: () => number) {
    this.#host = host;
    this.#powerOnHours = powerOnHours;
  }

  get isRunning(): boolean {
    return this.#run !== undefined;
  }

  /** Starts a test. None may be under way. It begins when the last one has let go of the disks, which may take one that does not answer. */
  start(code: number, nsids: readonly number[]): void {
    this.#run = new Run(code, nsids);
    this.#begin();
  }

  #begin(): void {
    const run = this.#run;
    if (run === undefined || this.#isWorking) {
      return;
    }
    this.#isWorking = true;
    void this.#host
      .maintain((operate) => this.#test(run, operate))
      .catch((error: unknown): Failure => {
        this.#host.log.error({ err: error }, 'a self-test could not go on');
        return { segment: Segment.BLOCKS, nsid: 0, status: Status.INTERNAL_ERROR };
      })
      .then((failure) => {
        this.#isWorking = false;
        this.#end(run, failure);
        this.#begin();
      });
  }

  /** Ends the test under way, if it is of these namespaces. `end`: see SelfTestEnd. */
  stop(end: number, nsids?: readonly number[]): void {
    const run = this.#run;
    if (run !== undefined && (nsids === undefined || nsids.some((id) => run.nsids.includes(id)))) {
      run.stop ??= end;
      this.#finish(run, run.stop, undefined);
    }
  }

  /** Controller Level Reset: a short test ends with it. */
  reset(): void {
    if (this.#run?.code === SelfTestCode.SHORT) {
      this.stop(SelfTestEnd.RESET);
    }
  }

  #end(run: Run, failure: Failure | undefined): void {
    this.#finish(run, failure === undefined ? SelfTestEnd.PASSED : SelfTestEnd.FAILED, failure);
  }

  #finish(run: Run, end: number, failure: Failure | undefined): void {
    if (this.#run !== run) {
      return;
    }
    this.#run = undefined;
    this.#ended.unshift({ code: run.code, end, poh: this.#powerOnHours(), failure });
    this.#ended.length = Math.min(this.#ended.length, SELF_TEST_RESULTS);
  }

  // --- the test -----------------------------------------------------------------------------------------------------

  async #test(run: Run, operate: Operate): Promise<Failure | undefined> {
    const pieces = run.nsids.map((nsid) => this.#pieces(run, nsid));
    run.steps = run.nsids.length + pieces.reduce((sum, { count }) => sum + count, 0) + 1;
    run.done = 1;
    for (const nsid of run.nsids) {
      // It may have gone while the test waited for the one before.
      if (!this.#host.namespaces.has(nsid)) {
        this.stop(SelfTestEnd.NAMESPACE_REMOVED, [nsid]);
        return undefined;
      }
      try {
        await this.#host.syncNamespace(nsid);
      } catch {
        return { segment: Segment.SYNC, nsid, status: Status.WRITE_FAULT };
      }
      if (run.stop !== undefined) {
        return undefined;
      }
      run.done += 1;
    }
    for (const [i, nsid] of run.nsids.entries()) {
      const { count, steps } = pieces[i];
      for (let piece = 0; piece < count; piece++) {
        const offset = Math.floor((piece * steps) / count) * STEP_BYTES;
        const began = performance.now();
        const failure = await this.#verify(run, operate, nsid, offset);
        if (failure !== undefined || run.stop !== undefined) {
          return failure;
        }
        run.done += 1;
        await sleep(performance.now() - began, undefined, { ref: false });
      }
    }
    return undefined;
  }

  /** How many steps a namespace has, and how many of them, at equal distances, are verified. */
  #pieces({ code }: Run, nsid: number): { readonly steps: number; readonly count: number } {
    const { blockSize = 0, numBlocks = 0 } = this.#host.namespaces.get(nsid) ?? {};
    const steps = Math.ceil((blockSize * numBlocks) / STEP_BYTES);
    return { steps, count: code === SelfTestCode.SHORT ? Math.min(steps, SAMPLES) : steps };
  }

  /** Verifies one step of a namespace, and finds the first block that fails. */
  async #verify(
    run: Run,
    operate: Operate,
    nsid: number,
    offset: number,
  ): Promise<Failure | undefined> {
    const namespace = this.#host.namespaces.get(nsid);
    if (namespace === undefined) {
      this.stop(SelfTestEnd.NAMESPACE_REMOVED, [nsid]);
      return undefined;
    }
    const { blockSize, numBlocks } = namespace;
    // It may have become smaller.
    const length = Math.min(STEP_BYTES, blockSize * numBlocks - offset);
    const verify = (at: number, bytes: number) =>
      operate(nsid, { op: Op.VERIFY, offset: at, length: bytes });
    const status = length <= 0 ? Status.SUCCESS : await verify(offset, length);
    if (status === Status.SUCCESS || run.stop !== undefined) {
      return undefined;
    }
    if (!this.#host.namespaces.has(nsid)) {
      this.stop(SelfTestEnd.NAMESPACE_REMOVED, [nsid]);
      return undefined;
    }
    const flba = await this.#locate(namespace, offset, length, verify);
    return { segment: Segment.BLOCKS, nsid, flba, status };
  }

  /** The first block of the range that cannot be verified, which one cannot. */
  async #locate(
    { blockSize }: Namespace,
    offset: number,
    length: number,
    verify: (at: number, bytes: number) => Promise<number>,
  ): Promise<number> {
    let at = offset;
    let rest = length;
    while (rest > blockSize) {
      const half = Math.ceil(rest / blockSize / 2) * blockSize;
      if ((await verify(at, half)) === Status.SUCCESS) {
        at += half;
        rest -= half;
      } else {
        rest = half;
      }
    }
    return at / blockSize;
  }

  // --- the log ------------------------------------------------------------------------------------------------------

  page(): Uint8Array {
    const { size } = SelfTestResult;
    const out = new Uint8Array(SelfTestLog.size + SELF_TEST_RESULTS * size);
    const view = new DataView(out.buffer);
    const run = this.#run;
    if (run !== undefined) {
      const completion = Math.min(99, Math.floor((100 * run.done) / run.steps));
      SelfTestLog.write(view, 0, { operation: run.code, completion });
    }
    for (let i = 0; i < SELF_TEST_RESULTS; i++) {
      SelfTestResult.write(view, SelfTestLog.size + i * size, describe(this.#ended[i]));
    }
    return out;
  }
}

function describe(ended: Ended | undefined) {
  if (ended === undefined) {
    return { status: SelfTestStatus.encode({ result: SelfTestEnd.NOT_USED }) };
  }
  const { code, end, poh, failure } = ended;
  const status = SelfTestStatus.encode({ code, result: end });
  if (failure === undefined) {
    return { status, poh };
  }
  const { segment, nsid, flba } = failure;
  const { sct, sc } = StatusField.decode(failure.status);
  const valid = { nsid: nsid !== 0, flba: flba !== undefined, sct: true, sc: true };
  return {
    ...{ status, poh, segment, nsid, sct, sc, flba: flba ?? 0 },
    valid: SelfTestValid.encode(valid),
  };
}
