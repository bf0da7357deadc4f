/** The test guest's kernel and its initramfs: busybox, the tools that the tests use, kernel modules in load order. */

import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { filesBelow } from './stamps.mjs';
import { run } from './tools.mjs';

/** @typedef {import('./debian-packages.mjs').Unpacked} Unpacked */

/** The packages that {@link makeGuestImage} takes files from; kmod and busybox also do the making. */
export const IMAGE_PACKAGES = ['busybox-static', 'kmod', 'fio', 'nvme-cli', 'e2fsprogs', 'gpiod'];

const PROGRAMS = [
  '/usr/bin/fio',
  '/usr/sbin/nvme',
  '/usr/sbin/mkfs.ext4',
  '/usr/sbin/e2fsck',
  ...['gpiodetect', 'gpioget', 'gpioset', 'gpiomon'].map((name) => `/usr/bin/${name}`),
];
const FILES = ['/etc/mke2fs.conf'];
/** virtio_mem is for the tests that plug memory; what follows it, for those of other PCI devices. */
const MODULES = ['nvme', 'ext4', 'virtio_pci', 'virtio_mem', 'gpio_pci_idio_16', 'uio_pci_generic'];

/**
 * Makes `vmlinuz` and `initramfs.cpio` in a folder. The initramfs is not compressed: the emulated processor would take
 * longer to unpack it than the host takes to read it.
 *
 * @param {Unpacked} packages
 * @param {string} init the script that the guest runs as its first process
 * @param {string} folder
 */
export function makeGuestImage(packages, init, folder) {
  const kernel = readdirSync(packages.path('/boot')).find((name) => name.startsWith('vmlinuz-'));
  if (!kernel) throw new Error('the kernel package holds no /boot/vmlinuz-*');
  copyFileSync(packages.path(`/boot/${kernel}`), join(folder, 'vmlinuz'));

  const image = join(folder, 'initramfs');
  for (const path of ['usr/bin', 'usr/sbin', 'usr/lib', 'usr/lib64', 'modules', 'tmp', 'mnt']) {
    mkdirSync(join(image, path), { recursive: true });
  }
  for (const name of ['bin', 'sbin', 'lib', 'lib64']) symlinkSync(`usr/${name}`, join(image, name));
  copyFileSync(init, join(image, 'init'));
  chmodSync(join(image, 'init'), 0o755);

  const shared = PROGRAMS.flatMap((program) => packages.libraries(program));
  for (const path of new Set([...PROGRAMS, ...FILES, ...shared])) {
    mkdirSync(dirname(join(image, path)), { recursive: true });
    copyFileSync(packages.path(path), join(image, path));
  }
  addBusybox(packages, image);
  addModules(packages, kernel.slice('vmlinuz-'.length), image);

  run(
    packages.path('/usr/bin/busybox'),
    ['cpio', '-o', '-H', 'newc', '-R', '0:0', '-F', join(folder, 'initramfs.cpio')],
    { cwd: image, stdin: run('find', ['.'], { cwd: image }) },
  );
  rmSync(image, { recursive: true });
}

/**
 * @param {Unpacked} packages
 * @param {string} image
 */
function addBusybox(packages, image) {
  const busybox = packages.path('/usr/bin/busybox');
  copyFileSync(busybox, join(image, 'usr/bin/busybox'));
  for (const applet of run(busybox, ['--list']).trim().split('\n')) {
    if (applet !== 'busybox') symlinkSync('busybox', join(image, 'usr/bin', applet));
  }
}

/**
 * Copies the modules, and writes /modules/order: their names in the order in which each finds what it depends on.
 *
 * @param {Unpacked} packages
 * @param {string} version
 * @param {string} image
 */
function addModules(packages, version, image) {
  /**
   * @param {string} name
   * @param {readonly string[]} args
   */
  const kmod = (name, args) => {
    const [command, ...rest] = packages.command('/usr/bin/kmod', ['--argv0', name]);
    return run(/** @type {string} */ (command), [...rest, ...args]);
  };
  const base = packages.path('/usr');
  kmod('depmod', ['-b', base, version]);
  const select = ['-d', base, '-S', version, '-C', '/dev/null', '--show-depends', '-a'];
  const listed = kmod('modprobe', [...select, ...MODULES]);
  const paths = new Set([...listed.matchAll(/^insmod (\S+)/gm)].map((match) => `${match[1]}`));
  for (const path of paths) copyFileSync(path, join(image, 'modules', basename(path)));
  const compressed = filesBelow(join(image, 'modules')).filter((path) => path.endsWith('.xz'));
  for (const path of compressed) run(packages.path('/usr/bin/busybox'), ['unxz', path]);
  const order = [...paths].map((path) => basename(path, '.xz'));
  writeFileSync(join(image, 'modules', 'order'), `${order.join('\n')}\n`);
}
