/**
 * Rates under the initiator in C of test/foreign, which shares no code with this project and stands for SPDK's: the goals are what
 * SPDK's nvmf_tgt did under it on the machine that they are for.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { native } from '../src/native/index.ts';
import { buildInitiator } from '../test/helpers/initiator.ts';
import { Disks } from './disks.ts';
import type { Conditions } from './load.ts';
import { median } from './stats.ts';
import { startTarget } from './target.ts';

interface ForeignLoad {
  readonly name: string;
  readonly bdev: 'null' | 'ram';
  readonly depth: number;
  readonly bytes: number;
  /** IOPS. */
  readonly goal: number;
}

/** Of SPDK's rate. */
const RAM_LEAD = 1.5;

const FOREIGN_LOADS: readonly ForeignLoad[] = [
  { name: 'foreign-null-1', bdev: 'null', depth: 1, bytes: 4096, goal: 1.4e6 },
  { name: 'foreign-null-32', bdev: 'null', depth: 32, bytes: 4096, goal: 5.0e6 },
  { name: 'foreign-null-128', bdev: 'null', depth: 128, bytes: 4096, goal: 7.4e6 },
  { name: 'foreign-ram-1', bdev: 'ram', depth: 1, bytes: 4096, goal: RAM_LEAD * 0.6e6 },
  { name: 'foreign-ram-32', bdev: 'ram', depth: 32, bytes: 4096, goal: RAM_LEAD * 1.15e6 },
  { name: 'foreign-ram-128', bdev: 'ram', depth: 128, bytes: 4096, goal: RAM_LEAD * 1.15e6 },
  { name: 'foreign-ram-128k-32', bdev: 'ram', depth: 32, bytes: 131_072, goal: 16e9 / 131_072 },
];

export interface ForeignFigure extends ForeignLoad {
  /** Median of the runs. */
  readonly iops: number;
}

export interface ForeignConditions extends Conditions {
  readonly runs: number;
  readonly cpus: readonly number[];
}

/** Undefined without a C compiler. */
export async function measureForeign(
  conditions: ForeignConditions,
): Promise<readonly ForeignFigure[] | undefined> {
  const folder = mkdtempSync(join(tmpdir(), 'doorbell-bench-'));
  try {
    const initiator = build(folder);
    return initiator === undefined ? undefined : await measure(initiator, folder, conditions);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function build(folder: string): string | undefined {
  try {
    return buildInitiator(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') {
      return undefined;
    }
    throw error;
  }
}

async function measure(
  initiator: string,
  folder: string,
  { runs, seconds, reactorCpu, clientCpu, cpus }: ForeignConditions,
): Promise<ForeignFigure[]> {
  const target = await startTarget({ cpus: [reactorCpu] });
  try {
    const disks = new Disks(target, join(folder, 'unused'));
    const figures: ForeignFigure[] = [];
    for (const load of FOREIGN_LOADS) {
      const { bdev, depth, bytes } = load;
      const shape = { op: 'read', random: true, blockSize: bytes, depth } as const;
      const [socket] = await disks.sockets(bdev, shape);
      // Whole seconds, and at least one.
      const duration = String(Math.max(1, Math.round(seconds)));
      const args = [socket, 'perf', String(depth), duration, 'read', String(bytes)];
      const once = (): number => {
        // A child inherits what its parent may use.
        native.setAffinity([clientCpu]);
        try {
          const output = execFileSync(initiator, args, { encoding: 'utf8', stdio: 'pipe' });
          return JSON.parse(output).iops;
        } finally {
          native.setAffinity(cpus);
        }
      };
      figures.push({ ...load, iops: median(Array.from({ length: runs }, once)) });
    }
    return figures;
  } finally {
    await target.stop();
  }
}
