/** Where QEMU, the guest's kernel and its initramfs are: read from what `src/setup/prepare.mjs test` left. */

import { existsSync, readFileSync } from 'node:fs';

/** In dist/, seen from dist/test/helpers/. */
const FOUND = new URL('../../guest.json', import.meta.url);

export interface Guest {
  /** The command that starts QEMU, and the arguments that come first. */
  readonly qemu: readonly [string, ...string[]];
  readonly kernel: string;
  readonly initrd: string;
}

/** The guest, or the reason why there is none. */
export function findGuest(): Guest | { readonly unavailable: string } {
  if (!existsSync(FOUND)) {
    return { unavailable: 'no guest was set up: run node src/setup/prepare.mjs test' };
  }
  const found = JSON.parse(readFileSync(FOUND, 'utf8')) as Guest | { unavailable: string };
  if ('unavailable' in found) {
    return found;
  }
  const gone = [found.qemu[0], found.kernel, found.initrd].find((file) => !existsSync(file));
  return gone === undefined
    ? found
    : { unavailable: `${gone} is gone: run node src/setup/prepare.mjs test` };
}
