/** VMs and disks of a target that a program embeds, in the words of a configuration file (docs/configuration.md). Owned by main. */
import { resolve } from 'node:path';
import { prepareHost } from '../app/config/host.ts';
import { compileSources, type LoadedConfig } from '../app/config/load.ts';
import type { Path } from '../app/config/problem.ts';
import type { ShortDisk, ShortVm } from '../app/config/schema.ts';
import { NQN_PREFIX } from '../app/config/short.ts';
import type { Service } from '../app/serve.ts';
import { deletingMethod, deletionOf } from '../bdev/kind-rules.ts';
import { bdevKind } from '../bdev/kinds.ts';
import type { ConfigCall } from '../target/model/plan.ts';
import { addNamespaceCall, bdevCalls, subsystemCalls } from '../target/model/plan.ts';
import type { Subsystem, TargetNamespace } from '../target/subsystem.ts';
import { FailedError, InvalidError } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';

/** A path, or what else a file or RAM disk needs; keys as in a configuration file. */
export type DiskOptions = string | Readonly<ShortDisk>;

/** A VM: its disks, and where its socket is; keys as in a configuration file. */
export type VmOptions = Readonly<Omit<ShortVm, 'disks'>> & {
  readonly disks?: readonly DiskOptions[];
};

/** A disk as its VM has it. */
export interface VmDisk {
  readonly bdev: string;
  readonly nsid: number;
  readonly bytes: number;
}

export interface Vm {
  /** Of its configuration; else its NQN. */
  readonly name: string;
  readonly nqn: string;
  /** Where VMMs connect. */
  readonly sockets: readonly string[];
  readonly disks: readonly VmDisk[];
}

export class Vms {
  readonly #service: Service;
  readonly #log: Logger;

  constructor(service: Service, log: Logger) {
    this.#service = service;
    this.#log = log;
  }

  list(): Vm[] {
    return this.#service.target.subsystems.map(describe);
  }

  /** All of it, or nothing. Rejects with ConfigError for what cannot be, and with what the method says that fails. */
  async add(name: string, vm: VmOptions): Promise<Vm> {
    const loaded = this.#compile(name, vm);
    const [subsystem] = loaded.plan.subsystems.values();
    await this.#make(loaded, subsystemCalls(subsystem));
    return describe(this.#service.target.subsystem(subsystem.params.nqn));
  }

  /** Disconnects its VMM, and deletes its disks with it. Files stay. */
  async remove(name: string): Promise<void> {
    const { nqn, namespaces } = this.#find(name);
    const bdevs = [...namespaces.values()].map(({ bdev }) => bdev);
    await this.#call({ method: 'nvmf_delete_subsystem', params: { nqn } });
    for (const bdev of bdevs) {
      await this.removeDisk(bdev.name);
    }
  }

  /** A namespace more, which a guest that runs finds by itself. */
  async addDisk(vm: string, disk: DiskOptions): Promise<VmDisk> {
    const subsystem = this.#find(vm);
    const { nqn } = subsystem;
    const loaded = this.#compile(nameOf(nqn), { nqn, disks: [this.#named(nameOf(nqn), disk)] });
    const [planned] = loaded.plan.subsystems.values();
    const [namespace] = planned.namespaces.values();
    await this.#make(loaded, [addNamespaceCall(nqn, namespace)]);
    const added = [...subsystem.namespaces.values()].find(
      ({ bdev }) => bdev.name === namespace.bdev_name,
    );
    if (added === undefined) {
      throw new FailedError(`bdev '${namespace.bdev_name}' was removed again`);
    }
    return describeDisk(added);
  }

  /** Its namespace goes first. The file stays. */
  async removeDisk(bdev: string): Promise<void> {
    const found = this.#service.target.bdevs.find(bdev);
    if (found === undefined) {
      throw new InvalidError(`there is no disk '${bdev}'`);
    }
    const { name, module } = found;
    await this.#call({ method: deletingMethod(bdevKind(module)), params: { name } });
  }

  #find(name: string): Subsystem {
    const { target } = this.#service;
    const subsystem = target.findSubsystem(NQN_PREFIX + name) ?? target.findSubsystem(name);
    if (subsystem === undefined) {
      throw new InvalidError(`there is no VM '${name}'`);
    }
    return subsystem;
  }

  /** A disk without a file gets a name that no other has. */
  #named(vm: string, disk: DiskOptions): DiskOptions {
    if (typeof disk === 'string' || disk.name !== undefined || disk.file !== undefined) {
      return disk;
    }
    const kind = disk.ram === undefined ? 'null' : 'ram';
    for (let number = 1; ; number++) {
      const name = `${vm}/${kind}${number}`;
      if (this.#service.target.bdevs.find(name) === undefined) {
        return { ...disk, name };
      }
    }
  }

  #compile(name: string, vm: VmOptions): LoadedConfig {
    const source = {
      // Relative paths start at the working directory.
      file: resolve('vm'),
      value: { vms: { [name]: vm } },
      place: (path: Path) => ({ file: `VM '${name}'`, path: path.slice(2) }),
    };
    return compileSources([source], this.#service.dispatcher);
  }

  /** Makes the disks, and what `calls` make of them. After a failure they are gone again. */
  async #make({ plan, sizes }: LoadedConfig, calls: readonly ConfigCall[]): Promise<void> {
    await prepareHost(plan, sizes, this.#log);
    const { target } = this.#service;
    if (target.transport === undefined && plan.transport !== undefined) {
      await this.#call({ method: 'nvmf_create_transport', params: plan.transport });
    }
    const undo: ConfigCall[] = [];
    try {
      for (const bdev of plan.bdevs.values()) {
        const [create, ...others] = bdevCalls(bdev);
        await this.#call(create);
        const method = deletionOf(create.method);
        undo.push({ method, params: { name: bdev.name } });
        for (const call of others) {
          await this.#call(call);
        }
      }
      for (const call of calls) {
        await this.#call(call);
        if (call.method === 'nvmf_create_subsystem') {
          undo.push({ method: 'nvmf_delete_subsystem', params: { nqn: call.params?.nqn } });
        }
      }
    } catch (error) {
      for (const call of undo.reverse()) {
        await this.#call(call).catch((failure: unknown) => {
          this.#log.error({ err: failure, method: call.method }, 'could not be undone');
        });
      }
      throw error;
    }
  }

  #call({ method, params }: ConfigCall): Promise<unknown> {
    // Without what is undefined.
    return this.#service.dispatcher.dispatch(method, JSON.parse(JSON.stringify(params ?? {})));
  }
}

function nameOf(nqn: string): string {
  return nqn.startsWith(NQN_PREFIX) ? nqn.slice(NQN_PREFIX.length) : nqn;
}

function describe({ nqn, listeners, namespaces }: Subsystem): Vm {
  return {
    name: nameOf(nqn),
    nqn,
    sockets: [...listeners.keys()],
    disks: [...namespaces.values()].sort((a, b) => a.nsid - b.nsid).map(describeDisk),
  };
}

function describeDisk({ nsid, bdev }: TargetNamespace): VmDisk {
  return { bdev: bdev.name, nsid, bytes: bdev.blockSize * bdev.numBlocks };
}
