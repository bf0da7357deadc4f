/** A QEMU with a vfio-user client: the machine's own if it is new enough, else Debian's, in a folder of ours. */

import { spawnSync } from 'node:child_process';
import { copyFileSync, cpSync, mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Unpacked } from './debian-packages.mjs';
import { which } from './tools.mjs';

export const QEMU_PACKAGES = ['qemu-system-x86'];

const QEMU = '/usr/bin/qemu-system-x86_64';
/** BIOS, option ROMs and the loader for `-kernel`. */
const FIRMWARE = ['/usr/share/qemu', '/usr/share/seabios'];

/**
 * @returns {string[] | undefined} the command line of the QEMU on PATH, if it is 10.1 or newer and has vfio-user-pci
 */
export function systemQemu() {
  const path = which('qemu-system-x86_64');
  if (!path) return undefined;
  /** @param {readonly string[]} args */
  const ask = (...args) => spawnSync(path, args, { encoding: 'utf8' }).stdout ?? '';
  const version = ask('--version').match(/version (\d+)\.(\d+)/);
  if (!version || Number(version[1]) * 100 + Number(version[2]) < 1001) return undefined;
  return ask('-device', 'help').includes('"vfio-user-pci"') ? [path] : undefined;
}

/**
 * Copies QEMU, its libraries and its firmware out of unpacked packages.
 *
 * @param {Unpacked} packages
 * @param {string} folder
 */
export function extractQemu(packages, folder) {
  for (const path of [QEMU, ...packages.libraries(QEMU)]) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    copyFileSync(packages.path(path), join(folder, path));
  }
  for (const path of FIRMWARE) {
    cpSync(packages.path(path), join(folder, path), { recursive: true, verbatimSymlinks: true });
  }
}

/**
 * @param {string} folder what {@link extractQemu} filled
 * @returns {string[]} the command line of that QEMU
 */
export function extractedQemu(folder) {
  const qemu = new Unpacked(folder);
  return [...qemu.command(QEMU), ...FIRMWARE.flatMap((path) => ['-L', qemu.path(path)])];
}
