/**
 * A real virtual machine under QEMU, for the tests: boots the guest that the set-up fetched, runs commands in it,
 * reboots it, powers it off. QEMU never outlives the test process.
 */

import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Qmp } from './qmp.ts';
import { Child } from './vm-child.ts';
import { findGuest } from './vm-guest.ts';
import { type CommandResult, SerialCommands } from './vm-serial.ts';

/** A boot takes 5 s to 15 s with emulated processors; this only ends a hang. */
const BOOT_TIMEOUT_MS = 180_000;
const COMMAND_TIMEOUT_MS = 60_000;
const PLUG_POLL_MS = 100;
const MIB = 1024 * 1024;
/** In a folder of the machine's own. */
const CONSOLE = 'console.log';
const QMP_SOCKET = 'qmp.sock';
/** How much of each log a failure shows, in characters. */
const CONSOLE_TAIL = 8000;
const COMMANDS_TAIL = 4000;

/** What follows `-device`, in QEMU's JSON form. */
export type Device = Readonly<Record<string, unknown>> & { readonly driver: string };

/** A file or block device of the host, for QEMU's own devices to name as `drive`. */
export interface Drive {
  readonly id: string;
  readonly file: string;
  /** How QEMU does its I/O. QEMU's default: a pool of threads. */
  readonly aio?: 'threads' | 'native' | 'io_uring';
}

export interface VmOptions {
  /** What runs the guest: by default DOORBELL_VM_ACCEL, or else emulation. */
  readonly accelerator?: 'tcg' | 'kvm';
  readonly cpus?: number;
  readonly memoryMiB?: number;
  /** Memory that a virtio-mem device can plug, at first none of it. `plug` changes that. */
  readonly pluggableMiB?: number;
  /** An IOMMU between the guest's devices and its memory, which the guest uses: mappings come and go as its driver says. */
  readonly iommu?: boolean;
  /** The guest's memory is not shared: no file at all, or one that QEMU maps for itself alone. */
  readonly privateMemory?: 'anonymous' | 'memfd' | 'file';
  readonly devices: readonly Device[];
  readonly drives?: readonly Drive[];
  /** More words for the kernel's command line. */
  readonly kernelArgs?: string;
}

/** The device that a vfio-user server offers at a UNIX socket. */
export function vfioUserDevice(socketPath: string): Device {
  return { driver: 'vfio-user-pci', socket: { type: 'unix', path: socketPath } };
}

function qemuArguments(options: VmOptions, kernel: string, initrd: string, folder: string) {
  const memoryMiB = options.memoryMiB ?? 512;
  const memory = `${memoryMiB}M`;
  const { pluggableMiB = 0, iommu = false } = options;
  const accelerator = options.accelerator ?? process.env.DOORBELL_VM_ACCEL ?? 'tcg';
  const json = (option: string, value: unknown) => [option, JSON.stringify(value)];
  return [
    ...['-no-user-config', '-nodefaults', '-display', 'none'],
    ...['-accel', accelerator, '-cpu', 'max', '-smp', `${options.cpus ?? 1}`],
    ...['-m', pluggableMiB > 0 ? `${memory},slots=1,maxmem=${memoryMiB + pluggableMiB}M` : memory],
    ...memoryArguments(options, memory, folder),
    ...(pluggableMiB > 0
      ? [
          ...['-object', `memory-backend-memfd,id=pluggable,size=${pluggableMiB}M,share=on`],
          ...['-device', 'virtio-mem-pci,id=pluggable-memory,memdev=pluggable,requested-size=0'],
        ]
      : []),
    // Before the devices that are behind it.
    ...(iommu ? ['-device', 'intel-iommu,intremap=on,caching-mode=on'] : []),
    ...['-qmp', `unix:${join(folder, QMP_SOCKET)},server=on,wait=off`],
    ...['-chardev', `file,id=console,path=${join(folder, CONSOLE)}`, '-serial', 'chardev:console'],
    ...['-serial', 'stdio'],
    ...['-kernel', kernel, '-initrd', initrd],
    ...['-append', kernelCommandLine(options)],
    ...(options.drives ?? []).flatMap(({ id, file, aio }) =>
      json('-blockdev', {
        driver: 'raw',
        'node-name': id,
        file: { driver: 'file', filename: file, ...(aio !== undefined && { aio }) },
      }),
    ),
    ...options.devices.flatMap((device) => json('-device', device)),
  ];
}

/** By default shared with the vfio-user server, which maps the guest's memory by its file descriptor. */
function memoryArguments({ privateMemory }: VmOptions, size: string, folder: string): string[] {
  if (privateMemory === 'anonymous') {
    return ['-machine', 'q35'];
  }
  const kind = privateMemory === 'file' ? `file,mem-path=${join(folder, 'memory')}` : 'memfd';
  const share = privateMemory === undefined ? 'on' : 'off';
  const object = `memory-backend-${kind},id=memory,size=${size},share=${share}`;
  return ['-object', object, '-machine', 'q35,memory-backend=memory'];
}

function kernelCommandLine({ iommu, pluggableMiB, kernelArgs }: VmOptions): string {
  return [
    'console=ttyS0 panic=-1',
    iommu === true && 'intel_iommu=on',
    // Only movable memory can be unplugged again.
    pluggableMiB !== undefined && 'memhp_default_state=online_movable',
    kernelArgs,
  ]
    .filter(Boolean)
    .join(' ');
}

export class Vm {
  readonly #qemu: Child;
  readonly #commands: SerialCommands;
  /** Holds the console's log while QEMU lives. */
  readonly #folder: string;
  #consoleText = '';
  #qmp: Qmp | undefined;
  /** Settled when QEMU is gone and all is cleared away. */
  readonly #exit: Promise<number | string>;

  /** Why no guest can be booted here; undefined when one can. */
  static available(): string | undefined {
    const guest = findGuest();
    return 'unavailable' in guest ? guest.unavailable : undefined;
  }

  /** Starts a machine and waits until it takes commands. */
  static async boot(options: VmOptions): Promise<Vm> {
    const vm = new Vm(options);
    try {
      await vm.#commands.ready(BOOT_TIMEOUT_MS);
    } catch (error) {
      // The caller has no machine to ask for its log.
      process.stderr.write(vm.log());
      await vm.kill();
      throw new Error(`the guest did not boot: ${(error as Error).message}`);
    }
    return vm;
  }

  private constructor(options: VmOptions) {
    const guest = findGuest();
    if ('unavailable' in guest) {
      throw new Error(guest.unavailable);
    }
    this.#folder = mkdtempSync(join(tmpdir(), 'doorbell-vm-'));
    const args = qemuArguments(options, guest.kernel, guest.initrd, this.#folder);
    const [command, ...first] = guest.qemu;
    this.#qemu = new Child(command, [...first, ...args], false);
    this.#commands = new SerialCommands(this.#qemu.stdin, this.#qemu.stdout);
    this.#exit = this.#qemu.exit.then((how) => {
      this.#consoleText = this.#readConsole();
      this.#qmp?.close();
      rmSync(this.#folder, { recursive: true, force: true });
      this.#commands.close(new Error(`QEMU is gone (${how})`));
      return how;
    });
  }

  /** QEMU's process, for what it costs the host. */
  get pid(): number {
    return this.#qemu.pid;
  }

  /** Runs a one-line shell command in the guest. It throws when the guest does not answer, not for a status. */
  run(command: string, timeoutMs = COMMAND_TIMEOUT_MS): Promise<CommandResult> {
    return this.#commands.run(command, timeoutMs);
  }

  /** Runs a command that has to succeed. @returns its output without white space at the ends */
  async succeed(command: string, timeoutMs = COMMAND_TIMEOUT_MS): Promise<string> {
    const { status, output } = await this.run(command, timeoutMs);
    if (status !== 0) {
      throw new Error(`exit code ${status} of: ${command}\n${output}`);
    }
    return output.trim();
  }

  /** Reboots the guest: the kernel shuts its devices down, QEMU resets the machine, the firmware starts anew. */
  async reboot(): Promise<void> {
    const ready = this.#commands.ready(BOOT_TIMEOUT_MS);
    this.#commands.send('reboot reboot -f');
    await ready;
  }

  /** Resets the machine as its button does: nobody in the guest knows before. */
  async reset(): Promise<void> {
    const ready = this.#commands.ready(BOOT_TIMEOUT_MS);
    await this.monitor('system_reset');
    await ready;
  }

  /** Plugs as much of the pluggable memory, or unplugs as much. Resolves when the guest has followed. */
  async plug(mebibytes: number): Promise<void> {
    const path = '/machine/peripheral/pluggable-memory';
    const size = mebibytes * MIB;
    await this.monitor('qom-set', { path, property: 'requested-size', value: size });
    const giveUp = Date.now() + COMMAND_TIMEOUT_MS;
    for (;;) {
      const plugged = await this.monitor('qom-get', { path, property: 'size' });
      if (plugged === size) {
        return;
      }
      if (Date.now() > giveUp) {
        throw new Error(`the guest has ${plugged} bytes plugged instead of ${size}`);
      }
      await sleep(PLUG_POLL_MS);
    }
  }

  /** A command for QEMU's monitor. Resolves with what it returns. */
  async monitor(command: string, args?: Readonly<Record<string, unknown>>): Promise<unknown> {
    if (this.#qmp === undefined) {
      this.#qmp = new Qmp(join(this.#folder, QMP_SOCKET));
      await this.#qmp.ready();
    }
    return this.#qmp.execute(command, args);
  }

  /** Powers the guest off and waits for QEMU's end. @throws when QEMU does not exit with 0 */
  async powerOff(timeoutMs = COMMAND_TIMEOUT_MS): Promise<void> {
    this.#commands.send('poweroff poweroff -f');
    await this.#qemu.end(timeoutMs);
    const how = await this.#exit;
    if (how !== 0) {
      throw new Error(`QEMU ended with ${how} at the guest's power-off`);
    }
  }

  /** Ends QEMU at once, as a crash would. No error when it is gone already. */
  async kill(): Promise<void> {
    this.#qemu.kill('SIGKILL');
    await this.#exit;
  }

  /** The ends of what the kernel, the commands and QEMU printed: to be shown when a test fails. */
  log(): string {
    const console = (this.#consoleText || this.#readConsole()).slice(-CONSOLE_TAIL);
    const commands = this.#commands.transcript.slice(-COMMANDS_TAIL);
    return [
      `--- the guest's console\n${console}\n`,
      `--- commands\n${commands}\n`,
      `--- QEMU\n${this.#qemu.output}\n`,
    ].join('');
  }

  #consolePath(): string {
    return join(this.#folder, CONSOLE);
  }

  #readConsole(): string {
    return existsSync(this.#consolePath()) ? readFileSync(this.#consolePath(), 'latin1') : '';
  }
}
