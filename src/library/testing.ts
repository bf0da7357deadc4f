/** `doorbell-nvme/testing`: a target that runs in a temporary folder, for tests of what uses one. docs/embedding.md shows it. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type DriveOptions, type NvmeDrive } from '../client/index.ts';
import { createTarget, type EmbeddedTarget, type TargetOptions } from './target.ts';
import type { DiskOptions, Vm, VmOptions } from './vms.ts';

export interface TestTargetOptions extends TargetOptions {
  /** Of the VM 'vm'. Default: a RAM disk of 64 MiB. */
  readonly disks?: readonly DiskOptions[];
}

/** One reactor that hardly ever polls: tests share their machine. µs. */
const QUIET = { reactors: 1, spinUs: 0, maxSleepUs: 1000 };
const DEFAULT_DISKS = [{ ram: '64M' }];

export class TestTarget {
  readonly target: EmbeddedTarget;
  /** For disk images and sockets; goes with the target. */
  readonly folder: string;
  readonly #drives = new Set<NvmeDrive>();

  constructor(target: EmbeddedTarget, folder: string) {
    this.target = target;
    this.folder = folder;
  }

  /** Where a VMM connects to the VM 'vm'. */
  get socket(): string {
    return this.#socketOf('vm');
  }

  #socketOf(vm: string): string {
    const socket = this.target.vms.find(({ name }) => name === vm)?.sockets[0];
    if (socket === undefined) {
      throw new Error(`there is no VM '${vm}'`);
    }
    return socket;
  }

  /** As {@link EmbeddedTarget.addVm}, with the socket in the folder. */
  addVm(name: string, vm: VmOptions): Promise<Vm> {
    return this.target.addVm(name, { socket: join(this.folder, name), ...vm });
  }

  /** Connects to a VM's controller, by default that of 'vm'. Hangs up when the target stops. */
  async connect(vm = 'vm', options: DriveOptions = {}): Promise<NvmeDrive> {
    const drive = await connect(this.#socketOf(vm), options);
    this.#drives.add(drive);
    return drive;
  }

  /** Hangs up, stops the target, and removes the folder. */
  async stop(): Promise<void> {
    for (const drive of this.#drives) {
      drive.close();
    }
    try {
      await this.target.stop();
    } finally {
      await rm(this.folder, { recursive: true, force: true });
    }
  }
}

/** Starts a target with one VM. Rejects with what is in the way, and leaves nothing behind. */
export async function startTestTarget(options: TestTargetOptions = {}): Promise<TestTarget> {
  const { disks = DEFAULT_DISKS, ...rest } = options;
  const folder = await mkdtemp(join(tmpdir(), 'doorbell-test-'));
  const test = new TestTarget(createTarget({ ...QUIET, ...rest }), folder);
  try {
    await test.target.start();
    await test.addVm('vm', { disks });
    return test;
  } catch (error) {
    await test.stop();
    throw error;
  }
}
