/**
 * A report about a target for whoever has to find out what went wrong: what each guest was doing, what happened last, how much there was of
 * everything. No data of guests. Written into a file of its own: by a process that crashes at once and without the event loop, else without
 * keeping anybody waiting. Owned by main.
 */
import { closeSync, openSync, readdirSync, unlinkSync, writeSync } from 'node:fs';
import { readdir, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FailedError } from '../util/errors.ts';
import { patiently } from '../util/patience.ts';
import { currentSnapshot } from './snapshot.ts';
import type { Target } from './target.ts';

/** Of a file. Bytes. */
const MAX_BYTES = 4 * 1024 * 1024;
/** Files kept in a folder: the newest. */
const MAX_FILES = 16;
const MAX_EVENTS = 64;
/** How long the reactors have to say how far their queues are; one that hangs says nothing. Milliseconds. */
const PATIENCE_MS = 50;
const NAME = /^doorbell-report-\d{8}T\d{9}Z-\d+-\d+\.json$/;

/** The reasons of reports that somebody asked for. */
export const Asked = { RPC: 'doorbell_dump', SIGNAL: 'SIGQUIT' } as const;

/** How long a report may take that nobody's life depends on. Milliseconds. */
const SAVE_MS = 2000;

let written = 0;
/** A report is being saved. */
let saving = false;

/**
 * The target's own folder, where reports go: that of its state, or the one that systemd made for the service (StateDirectory=). Undefined if
 * it has none: they go where temporary files do.
 */
export function reportFolder(
  stateDir: string | undefined,
  environment: NodeJS.ProcessEnv,
): string | undefined {
  // It may be a list.
  return stateDir ?? (environment.STATE_DIRECTORY?.split(':')[0] || undefined);
}

/** The reports in a folder, the oldest first. */
export function reportsIn(folder: string): string[] {
  return reportsOf(readdirSync(folder));
}

function reportsOf(names: readonly string[]): string[] {
  return names.filter((name) => NAME.test(name)).sort();
}

/**
 * Writes a report into a new file in a folder, for this user only, while the process goes on. Resolves with its path. Rejects with what the
 * system says, and FailedError if the file system does not answer in time, or has not answered the last time yet.
 */
export async function saveReport(
  target: Target,
  folder: string | undefined,
  reason: string,
  error?: unknown,
): Promise<string> {
  await target.reactors.report();
  const { path, text, into } = makeReport(target, folder, reason, error);
  if (saving) {
    throw new FailedError(`the last report is still being written into ${into}`);
  }
  saving = true;
  const saved = save(path, text, into).finally(() => {
    saving = false;
  });
  await patiently(saved, SAVE_MS, `${into} does not answer`);
  return path;
}

async function save(path: string, text: string, folder: string): Promise<void> {
  // A new file: nobody's link is followed.
  await writeFile(path, text, { flag: 'wx', mode: 0o600 });
  for (const name of reportsOf(await readdir(folder)).slice(0, -MAX_FILES)) {
    // Another user's stay.
    await unlink(join(folder, name)).catch(() => {});
  }
}

/** The same at once, for a process that will not go on. Returns the path. Throws what the system says. */
export function writeReport(
  target: Target,
  folder: string | undefined,
  reason: string,
  error?: unknown,
): string {
  waitForReactors(target);
  const { path, text, into } = makeReport(target, folder, reason, error);
  // A new file: nobody's link is followed.
  const fd = openSync(path, 'wx', 0o600);
  try {
    writeSync(fd, text);
  } finally {
    closeSync(fd);
  }
  removeOld(into);
  return path;
}

function makeReport(
  target: Target,
  folder: string | undefined,
  reason: string,
  error: unknown,
): { readonly path: string; readonly text: string; readonly into: string } {
  const into = folder ?? tmpdir();
  const time = new Date();
  written += 1;
  const stamp = time.toISOString().replaceAll(/[-:.]/g, '');
  const path = join(into, `doorbell-report-${stamp}-${process.pid}-${written}.json`);
  const text = render(target, { reason, time: time.toISOString(), ...describe(error) });
  return { path, text, into };
}

function describe(error: unknown): { error?: string } {
  if (error === undefined) {
    return {};
  }
  return { error: error instanceof Error ? (error.stack ?? error.message) : String(error) };
}

/** As much of it as there is room for; what guests did goes last. */
function render(target: Target, head: object): string {
  const { events } = target;
  const whole = {
    ...head,
    node: process.version,
    events: events.since(Math.max(0, events.last - MAX_EVENTS)),
    snapshot: currentSnapshot(target),
    controllers: target.subsystems.flatMap(({ nqn, listeners }) =>
      [...listeners.values()].flatMap(({ endpoint: { socketPath: socket, controller } }) =>
        controller === undefined ? [] : [{ nqn, socket, ...controller.diagnose() }],
      ),
    ),
  };
  const { controllers: _, ...withoutControllers } = whole;
  for (const part of [whole, withoutControllers]) {
    const text = `${JSON.stringify(part, undefined, 1)}\n`;
    if (Buffer.byteLength(text) <= MAX_BYTES) {
      return text;
    }
  }
  return `${JSON.stringify(head)}\n`;
}

/** They write it into shared memory: there is no need for their answers, which this thread could not hear. */
function waitForReactors(target: Target): void {
  void target.reactors.report();
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PATIENCE_MS);
}

function removeOld(folder: string): void {
  for (const name of reportsIn(folder).slice(0, -MAX_FILES)) {
    try {
      unlinkSync(join(folder, name));
    } catch {
      // Another user's.
    }
  }
}
