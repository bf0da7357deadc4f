/**
 * Prometheus' promtool, which checks our metrics in a test: the machine's own, or out of Debian's package, unpacked into the user's cache
 * folder and not installed. The outcome is written to dist/promtool.json: where it is, or why the test cannot have it.
 */

import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { writeStamp } from './stamps.mjs';
import { isRoot, run, SetupError, say, which } from './tools.mjs';

const PACKAGE = 'prometheus';

/** @param {string} folder where apt puts the package */
function download(folder) {
  try {
    run('apt-get', ['download', PACKAGE], { cwd: folder });
  } catch (error) {
    // A fresh machine has no lists of packages.
    if (!(error instanceof SetupError) || !isRoot()) throw error;
    run('apt-get', ['update']);
    run('apt-get', ['download', PACKAGE], { cwd: folder });
  }
}

/** @param {string} promtool where it is put */
function fetchPromtool(promtool) {
  for (const tool of ['apt-get', 'dpkg-deb']) {
    if (!which(tool))
      throw new SetupError(`${tool} is not on PATH, so Debian's package cannot be fetched`);
  }
  const cache = join(promtool, '..');
  say(`fetching promtool from Debian (once, kept in ${cache})`);
  mkdirSync(cache, { recursive: true });
  const work = mkdtempSync(join(cache, 'work-'));
  try {
    // apt drops its privileges for the download.
    chmodSync(work, 0o777);
    download(work);
    const file = readdirSync(work).find((name) => name.endsWith('.deb'));
    run('dpkg-deb', ['--extract', join(work, `${file}`), join(work, 'root')]);
    const copy = join(work, 'promtool');
    copyFileSync(join(work, 'root/usr/bin/promtool'), copy);
    if (spawnSync(copy, ['--version']).status !== 0)
      throw new SetupError(`Debian's promtool does not run here`);
    renameSync(copy, promtool);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/**
 * Sees to it that the test of the metrics can run promtool, or knows why not.
 *
 * @param {string} root
 */
export function ensurePromtool(root) {
  const configured = process.env.XDG_CACHE_HOME;
  // The XDG specification wants a relative path to be ignored.
  const caches = configured?.startsWith('/') ? configured : join(homedir(), '.cache');
  const cached = join(caches, 'doorbell', 'promtool');
  /** @type {object} */
  let outcome;
  try {
    const own = which('promtool');
    if (!own && !existsSync(cached)) fetchPromtool(cached);
    outcome = { path: own ?? cached };
  } catch (error) {
    if (!(error instanceof SetupError) && !(error instanceof Error && 'code' in error)) throw error;
    say(`no promtool: ${error.message}; the test that needs it will be skipped`);
    outcome = { unavailable: `no promtool: ${error.message}` };
  }
  writeStamp(join(root, 'dist', 'promtool.json'), JSON.stringify(outcome, undefined, 2));
}
