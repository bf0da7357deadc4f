/**
 * `npm run test:mutants [-- NAME…]`: puts faults into copies of the built product, one each, and shows that the simulator finds them: after how
 * many seeds. A fault that does not apply any more, or is not found, fails.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MUTATIONS, type Mutation } from './mutations.ts';

/** From dist/test/sim. */
const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const SEEDS = 10_000;
const EVENTS = 500;

/** What a copy needs to run. */
function copy(): string {
  const folder = mkdtempSync(join(tmpdir(), 'doorbell-mutant-'));
  for (const name of ['src', 'test/sim', 'test/helpers', 'workers']) {
    cpSync(join(ROOT, 'dist', name), join(folder, 'dist', name), { recursive: true });
  }
  for (const name of ['node_modules', 'build', 'package.json']) {
    symlinkSync(join(ROOT, name), join(folder, name));
  }
  return folder;
}

function apply(folder: string, { file, from, to }: Mutation): void {
  const path = join(folder, 'dist', file);
  const text = readFileSync(path, 'utf8');
  if (text.split(from).length !== 2) {
    throw new Error(`${file} has '${from}' ${text.split(from).length - 1} times`);
  }
  writeFileSync(path, text.replace(from, to));
}

/** The seeds it took, and what was seen; or undefined if nothing was. */
function find(folder: string): { seeds: number; text: string } | undefined {
  const args = ['--seeds', SEEDS, '--events', EVENTS, '--processes', 1].map(String);
  const program = join(folder, 'dist/test/sim/main.js');
  const { status, stderr } = spawnSync(process.execPath, [program, ...args], { encoding: 'utf8' });
  const [, seed, text] = /^seed (\d+): (.*)/m.exec(stderr) ?? [];
  return status === 0 || seed === undefined
    ? undefined
    : { seeds: Number(seed), text: text.slice(0, 110) };
}

const wanted = process.argv.slice(2);
const chosen = MUTATIONS.filter(
  ({ name }) => wanted.length === 0 || wanted.some((each) => name.includes(each)),
);
for (const mutation of chosen) {
  const folder = copy();
  try {
    apply(folder, mutation);
    const found = find(folder);
    if (found === undefined) {
      process.exitCode = 1;
    }
    const result =
      found === undefined ? `NOT FOUND in ${SEEDS} seeds` : `seed ${found.seeds}: ${found.text}`;
    console.log(`${mutation.name.padEnd(58)} ${result}`);
  } catch (error) {
    process.exitCode = 1;
    console.log(`${mutation.name.padEnd(58)} ${(error as Error).message}`);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
