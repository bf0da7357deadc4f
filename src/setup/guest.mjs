/**
 * What the virtual-machine tests boot: QEMU, a kernel, an initramfs. Fetched once into the user's cache folder.
 *
 * The outcome is written to dist/guest.json, which test/helpers/vm-guest.ts reads: where the three are, or the
 * reason why the tests cannot run here. That reason is no failure of the set-up: the tests skip with it.
 */

import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cached, cacheFolder } from './cache.mjs';
import { fetchPackages, packagesUnavailable } from './debian-packages.mjs';
import { IMAGE_PACKAGES, makeGuestImage } from './guest-image.mjs';
import { extractedQemu, extractQemu, QEMU_PACKAGES, systemQemu } from './qemu.mjs';
import { hashContents, writeStamp } from './stamps.mjs';
import { SetupError, say } from './tools.mjs';

/** The recipe: a change to any of these makes a new guest. */
const RECIPE = ['guest.mjs', 'cache.mjs', 'debian-packages.mjs', 'guest-image.mjs', 'qemu.mjs'];

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
  /** @type {object} */
  let outcome;
  try {
    const folder = cached('guest', stamp, (made, work) => {
      const reason = packagesUnavailable();
      if (reason) throw new SetupError(reason);
      const also = qemu ? '' : ' and QEMU';
      say(`fetching a test guest${also} from Debian (once, kept in ${cacheFolder()})`);
      const names = [...IMAGE_PACKAGES, ...(qemu ? [] : QEMU_PACKAGES)];
      const packages = fetchPackages(join(work, 'packages'), names, { kernel: true });
      makeGuestImage(packages, init, made);
      if (!qemu) extractQemu(packages, join(made, 'qemu'));
    });
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
