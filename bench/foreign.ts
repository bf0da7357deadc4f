/**
 * `node dist/bench/foreign.js`: IOPS of one reactor with a null bdev under the initiator in C, which stands for SPDK's. Reads of 4 KiB,
 * the target on the first processor and the initiator on the second. Options: `--runs N`, `--seconds S`. Prints a table, and writes
 * bench/results/foreign.json.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { native } from '../src/native/index.ts';
import { buildInitiator } from '../test/helpers/initiator.ts';
import { startTarget } from './target.ts';

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '2' },
  },
});
const runs = Number(values.runs);
const seconds = Number(values.seconds);
const DEPTHS = [1, 32, 128];
const BLOCK_BYTES = 4096;

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

const allowed = native.getAffinity();
const [reactorCpu, initiatorCpu] = allowed.length > 1 ? allowed : [allowed[0], allowed[0]];

const folder = mkdtempSync(join(tmpdir(), 'doorbell-bench-'));
const rows: { depth: number; iops: number; runs: number[] }[] = [];
try {
  const initiator = buildInitiator(folder);
  const target = await startTarget({ cpus: [reactorCpu] });
  try {
    // Only now: a child inherits what its parent may use.
    native.setAffinity([initiatorCpu]);
    await target.rpc('bdev_null_create', { name: 'null', num_blocks: 1 << 28, block_size: 512 });
    const socket = await target.serve('null');
    const measure = (depth: number): number => {
      const args = [socket, 'perf', String(depth), String(seconds), 'read', String(BLOCK_BYTES)];
      const output = execFileSync(initiator, args, { encoding: 'utf8', stdio: 'pipe' });
      return JSON.parse(output).iops;
    };
    for (const depth of DEPTHS) {
      const iops = Array.from({ length: runs }, () => measure(depth));
      rows.push({ depth, iops: median(iops), runs: iops });
      const text = `${(median(iops) / 1e6).toFixed(3)} M IOPS`;
      const range = `${(Math.min(...iops) / 1e6).toFixed(3)} to ${(Math.max(...iops) / 1e6).toFixed(3)}`;
      process.stdout.write(`depth ${String(depth).padEnd(5)} ${text.padStart(14)}   ${range}\n`);
    }
  } finally {
    await target.stop();
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
mkdirSync('bench/results', { recursive: true });
const result = { bdev: 'null', op: 'read', bytes: BLOCK_BYTES, seconds, rows };
writeFileSync('bench/results/foreign.json', `${JSON.stringify(result, null, 2)}\n`);
