/**
 * NBD servers for the tests, nbdkit and qemu-nbd: the machine's own, or out of Debian's packages, unpacked into the user's cache folder and not
 * installed. The outcome is written to dist/nbd.json, which test/helpers/nbd-server.ts reads: how they are run, or why they cannot be.
 */

import { spawnSync } from 'node:child_process';
import { cpSync, existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cached, cacheFolder } from './cache.mjs';
import { fetchPackages, packagesUnavailable, Unpacked } from './debian-packages.mjs';
import { hashContents, writeStamp } from './stamps.mjs';
import { SetupError, say, which } from './tools.mjs';

const PACKAGES = ['nbdkit', 'qemu-utils'];
const NBDKIT = '/usr/bin/nbdkit';
const QEMU_NBD = '/usr/bin/qemu-nbd';
/** Plugins and filters, which nbdkit looks for where the package would have been installed. */
const MODULES = '/usr/lib/x86_64-linux-gnu/nbdkit';
/** The recipe: a change to any of these fetches them again. */
const RECIPE = ['nbd.mjs', 'cache.mjs', 'debian-packages.mjs'];

/** @param {string} root */
function fetchServers(root) {
  const here = dirname(fileURLToPath(import.meta.url));
  const recipe = RECIPE.map((name) => join(here, name));
  const stamp = hashContents(root, recipe, []).slice(0, 16);
  const folder = cached('nbd', stamp, (made, work) => {
    const reason = packagesUnavailable();
    if (reason) throw new SetupError(reason);
    say(`fetching NBD servers from Debian (once, kept in ${cacheFolder()})`);
    const packages = fetchPackages(join(work, 'packages'), PACKAGES);
    cpSync(packages.root, made, { recursive: true, verbatimSymlinks: true });
    const unpacked = new Unpacked(made);
    for (const program of [NBDKIT, QEMU_NBD]) {
      const [loader, ...args] = unpacked.command(program);
      if (spawnSync(`${loader}`, [...args, '--version']).status !== 0)
        throw new SetupError(`Debian's ${program} does not run here`);
    }
  });
  const unpacked = new Unpacked(folder);
  const modules = unpacked.path(MODULES);
  if (!existsSync(modules)) throw new SetupError(`Debian's nbdkit has no ${MODULES}`);
  return { nbdkit: unpacked.command(NBDKIT), modules, qemuNbd: unpacked.command(QEMU_NBD) };
}

/**
 * Sees to it that the tests with NBD servers can run, or know why not.
 *
 * @param {string} root
 */
export function ensureNbd(root) {
  /** @type {object} */
  let outcome;
  try {
    const [nbdkit, qemuNbd] = [which('nbdkit'), which('qemu-nbd')];
    outcome = nbdkit && qemuNbd ? { nbdkit: [nbdkit], qemuNbd: [qemuNbd] } : fetchServers(root);
  } catch (error) {
    if (!(error instanceof SetupError) && !(error instanceof Error && 'code' in error)) throw error;
    if (error instanceof SetupError) process.stderr.write(error.output);
    say(`no NBD servers: ${error.message}; the tests that need them will be skipped`);
    outcome = { unavailable: `no NBD servers: ${error.message}` };
  }
  writeStamp(join(root, 'dist', 'nbd.json'), JSON.stringify(outcome, undefined, 2));
}
