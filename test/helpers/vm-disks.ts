/**
 * What offers the guest its disks: one NVMe controller with a namespace for each file. That is Doorbell, started as a
 * user starts it; with DOORBELL_VM_DISKS=qemu it is QEMU's own NVMe device, to tell whether a failure is ours.
 */

import { mkdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type Device, type Drive, type Vm, vfioUserDevice } from './vm.ts';
import { Child } from './vm-child.ts';

const CLI = fileURLToPath(new URL('../../src/cli/doorbell.js', import.meta.url));
/** Ends a hang; a start takes less than a second. */
const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 30_000;
const POLL_MS = 20;

export interface Disks {
  /** What the controller calls itself (Identify Controller, MN). */
  readonly model: RegExp;
  readonly devices: readonly Device[];
  readonly drives: readonly Drive[];
  /** The vfio-user socket, if there is one. */
  readonly socket?: string;
  /** Makes the devices usable by a machine. */
  start(): Promise<void>;
  /** Stops in order. @throws when that does not end with exit code 0 */
  stop(): Promise<void>;
  /** Ends it at once, if it runs. */
  kill(): Promise<void>;
  /** What it printed. */
  log(): string;
}

class DoorbellDisks implements Disks {
  readonly model = /doorbell/i;
  readonly devices: readonly Device[];
  readonly drives = [];
  readonly socket: string;
  readonly #args: readonly string[];
  readonly #socketFolder: string;
  #target: Child | undefined;
  #log = '';

  constructor(files: readonly string[], folder: string) {
    this.#socketFolder = join(folder, 'sockets');
    mkdirSync(this.#socketFolder);
    this.socket = join(this.#socketFolder, 'cntrl');
    this.devices = [vfioUserDevice(this.socket)];
    this.#args = [
      ...[CLI, 'serve', '--socket-dir', this.#socketFolder, '-r', join(folder, 'rpc.sock')],
      ...files.flatMap((file) => ['--disk', file]),
    ];
  }

  async start(): Promise<void> {
    const target = new Child(process.execPath, this.#args, true);
    this.#target = target;
    let gone: number | string | undefined;
    void target.exit.then((how) => {
      gone = how;
    });
    for (const giveUp = Date.now() + START_TIMEOUT_MS; ; await sleep(POLL_MS)) {
      // It names its socket once it listens.
      if (target.output.includes(this.socket)) {
        return;
      }
      if (gone !== undefined || Date.now() > giveUp) {
        throw new Error(`doorbell does not listen (${gone ?? 'still running'}):\n${target.output}`);
      }
    }
  }

  async stop(): Promise<void> {
    this.#target?.kill('SIGTERM');
    const how = await this.#target?.end(STOP_TIMEOUT_MS);
    const log = this.log();
    await this.kill();
    if (how !== 0) {
      throw new Error(`doorbell ended with ${how} after SIGTERM:\n${log}`);
    }
  }

  async kill(): Promise<void> {
    this.#target?.kill('SIGKILL');
    await this.#target?.exit;
    this.#log = this.log();
    this.#target = undefined;
  }

  log(): string {
    return this.#log + (this.#target?.output ?? '');
  }
}

class QemuDisks implements Disks {
  readonly model = /^QEMU NVMe Ctrl/;
  readonly devices: readonly Device[];
  readonly drives: readonly Drive[];

  constructor(files: readonly string[]) {
    this.drives = files.map((file, index) => ({ id: `disk${index + 1}`, file }));
    this.devices = [
      { driver: 'nvme', id: 'nvme', serial: 'reference' },
      ...this.drives.map(({ id }, index) => ({
        driver: 'nvme-ns',
        bus: 'nvme',
        drive: id,
        nsid: index + 1,
      })),
    ];
  }

  async start(): Promise<void> {}
  async stop(): Promise<void> {}
  async kill(): Promise<void> {}
  log(): string {
    return '';
  }
}

/**
 * @param files the namespaces' files, the first being namespace 1
 * @param folder for sockets
 */
export function makeDisks(files: readonly string[], folder: string): Disks {
  return process.env.DOORBELL_VM_DISKS === 'qemu'
    ? new QemuDisks(files)
    : new DoorbellDisks(files, folder);
}

/**
 * Waits until a namespace's block device is there. Linux scans namespaces in parallel, so the number in the device's
 * name need not be the namespace's.
 *
 * @returns its path in the guest
 */
export async function namespaceDevice(vm: Vm, nsid: number): Promise<string> {
  const find = `grep -lx ${nsid} /sys/block/nvme0n*/nsid 2>/dev/null`;
  const attribute = await vm.succeed(
    `for i in $(seq 200); do ${find} && exit; sleep 0.1; done; exit 1`,
  );
  return `/dev/${basename(dirname(attribute))}`;
}
