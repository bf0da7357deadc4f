/**
 * What the virtual-machine tests boot: QEMU, a kernel, an initramfs. Fetched once into the user's cache folder.
 *
 * The outcome is written to dist/guest.json, which test/helpers/vm-guest.ts reads: where the three are, or the
 * reason why the tests cannot run here. That reason is no failure of the set-up: the tests skip with it.
 */

import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { fetchPackages, packagesUnavailable } from './debian-packages.mjs';
import { IMAGE_PACKAGES, makeGuestImage } from './guest-image.mjs';
import { extractedQemu, extractQemu, QEMU_PACKAGES, systemQemu } from './qemu.mjs';
import { hashContents, writeStamp } from './stamps.mjs';
import { SetupError, say } from './tools.mjs';

/** The recipe: a change to any of these makes a new guest. */
const RECIPE = ['guest.mjs', 'debian-packages.mjs', 'guest-image.mjs', 'qemu.mjs'];

const DAY_MS = 24 * 60 * 60 * 1000;

function cacheFolder() {
  // The XDG specification wants a relative path to be ignored.
  const configured = process.env.XDG_CACHE_HOME;
  return join(configured?.startsWith('/') ? configured : join(homedir(), '.cache'), 'doorbell');
}

/**
 * @param {string} cache
 * @param {string} folder its final name
 * @param {string} init
 * @param {boolean} withQemu
 */
function makeGuest(cache, folder, init, withQemu) {
  const reason = packagesUnavailable();
  if (reason) throw new SetupError(reason);
  say(`fetching a test guest${withQemu ? ' and QEMU' : ''} from Debian (once, kept in ${cache})`);
  mkdirSync(cache, { recursive: true });
  const work = mkdtempSync(join(cache, 'work-'));
  try {
    const names = [...IMAGE_PACKAGES, ...(withQemu ? QEMU_PACKAGES : [])];
    const packages = fetchPackages(join(work, 'packages'), names);
    const guest = join(work, 'guest');
    mkdirSync(guest);
    makeGuestImage(packages, init, guest);
    if (withQemu) extractQemu(packages, join(guest, 'qemu'));
    try {
      renameSync(guest, folder);
    } catch (error) {
      // Another set-up was faster: its guest is the same.
      if (!existsSync(folder)) throw error;
    }
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  for (const name of readdirSync(cache)) {
    const path = join(cache, name);
    const oldGuest = name.startsWith('guest-') && path !== folder;
    // Left by a set-up that was interrupted; a young one may still be at work.
    const leftover = name.startsWith('work-') && Date.now() - statSync(path).mtimeMs > DAY_MS;
    if (oldGuest || leftover) rmSync(path, { recursive: true, force: true });
  }
}

/**
 * Sees to it that the virtual-machine tests can boot a guest, or know why not.
 *
 * @param {string} root
 */
export function ensureGuest(root) {
  const here = dirname(fileURLToPath(import.meta.url));
  const init = join(root, 'test', 'vm', 'guest-init.sh');
  const qemu = systemQemu();
  const recipe = [...RECIPE.map((name) => join(here, name)), init];
  const stamp = hashContents(root, recipe, [qemu === undefined]).slice(0, 16);
  const cache = cacheFolder();
  const folder = join(cache, `guest-${stamp}`);
  /** @type {object} */
  let outcome;
  try {
    if (!existsSync(folder)) makeGuest(cache, folder, init, qemu === undefined);
    outcome = {
      qemu: qemu ?? extractedQemu(join(folder, 'qemu')),
      kernel: join(folder, 'vmlinuz'),
      initrd: join(folder, 'initramfs.cpio'),
    };
  } catch (error) {
    // A tool that failed, or the file system: what else is thrown is our own fault.
    if (!(error instanceof SetupError) && !(error instanceof Error && 'code' in error)) throw error;
    if (error instanceof SetupError) process.stderr.write(error.output);
    const unavailable = `no guest to boot: ${error.message}`;
    say(
      `${unavailable}; the virtual-machine tests will ${process.env.CI === 'true' ? 'fail' : 'be skipped'}`,
    );
    outcome = { unavailable };
  }
  writeStamp(join(root, 'dist', 'guest.json'), JSON.stringify(outcome, undefined, 2));
}
