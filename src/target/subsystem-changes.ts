/** Changes of subsystems, their namespaces and hosts: each in the order of its subsystem, and told to the guests of all listeners. Owned by main. */
import type { Disk } from '../bdev/disk.ts';
import { NamespaceState } from '../nvme/namespace-state.ts';
import { ErrnoError, InvalidError } from '../util/errors.ts';
import type { Listeners } from './listeners.ts';
import { type NamespaceParams, parseNamespace } from './model/apply.ts';
import { found } from './model/model.ts';
import type { SubsystemModel, SubsystemOptions } from './model/subsystem.ts';
import type { Parts } from './parts.ts';
import { Subsystem, type TargetNamespace } from './subsystem.ts';
import type { NamespaceUser } from './types.ts';

export type NamespaceOptions = Omit<NamespaceParams, 'bdev_name'>;

export class SubsystemChanges {
  readonly #parts: Parts;
  readonly #listeners: Listeners;

  constructor(parts: Parts, listeners: Listeners) {
    this.#parts = parts;
    this.#listeners = listeners;
  }

  async create(options: SubsystemOptions): Promise<void> {
    const { subsystems, changes, events, log } = this.#parts;
    const { nqn } = options;
    const before = subsystems.get(nqn);
    if (before?.leaving === true) {
      await changes.orders.settled(before);
    }
    await changes.run(() => {
      subsystems.set(nqn, this.#make(options));
      log.info({ nqn }, 'subsystem created');
      events.emit({ type: 'subsystem-created', nqn });
    });
  }

  #make(options: SubsystemOptions): Subsystem {
    const { model, keptReservations, keptSanitize } = this.#parts;
    const subsystem = new Subsystem(model.createSubsystem(options), keptReservations);
    keptSanitize.attach(subsystem.nqn, subsystem.sanitize);
    return subsystem;
  }

  /** Disconnects its clients, and gives its bdevs free. */
  async delete(nqn: string): Promise<void> {
    const { model, subsystems, changes, keptSanitize, events, log } = this.#parts;
    const subsystem = this.staying(nqn);
    subsystem.leave();
    // At once: what a guest holds up ends when its client goes, and with it the changes that are before this one.
    this.#listeners.hangUp(subsystem.listeners.values());
    try {
      await changes.runFor(subsystem, async () => {
        await this.#listeners.closeAll(subsystem);
        // Before its bdevs are free: nothing of it is to be erased that another has by then.
        await subsystem.endMaintenance();
        await keptSanitize.forget(nqn, subsystem.sanitize);
        subsystem.namespaces.clear();
        model.deleteSubsystem(nqn);
        subsystems.delete(nqn);
        log.info({ nqn }, 'subsystem deleted');
        events.emit({ type: 'subsystem-deleted', nqn });
      });
    } catch (error) {
      subsystem.stay();
      throw error;
    }
  }

  /** Changes the hosts or the allow-any-host flag of a subsystem. */
  configure(nqn: string, configure: (model: SubsystemModel) => void): Promise<void> {
    return this.run(nqn, ({ model }) => configure(model));
  }

  /** Throws InvalidError, also if it is being deleted; FailedError if nothing is changed any more. */
  staying(nqn: string): Subsystem {
    this.#parts.changes.check();
    const subsystem = found(this.#parts.subsystems, nqn);
    if (subsystem.leaving) {
      throw new InvalidError(`${nqn} is being deleted`, { key: 'nqn' });
    }
    return subsystem;
  }

  /** Runs a change in the subsystem's order. Rejects with InvalidError if there is none, or it is deleted before its turn. */
  async run<T>(nqn: string, change: (subsystem: Subsystem) => Promise<T> | T): Promise<T> {
    const { subsystems, changes } = this.#parts;
    const subsystem = this.staying(nqn);
    return changes.runFor(subsystem, () => {
      if (subsystems.get(nqn) !== subsystem) {
        throw new InvalidError(`${nqn} was deleted`, { key: 'nqn' });
      }
      return change(subsystem);
    });
  }

  // --- namespaces -------------------------------------------------------------------------------------------------

  /** Resolves with the NSID, once every connected controller has the namespace. */
  async addNamespace(nqn: string, bdevName: string, options: NamespaceOptions): Promise<number> {
    const { model, bdevs, events, log } = this.#parts;
    const making = bdevs.making(bdevName);
    if (making !== undefined) {
      this.staying(nqn);
      // Not in the subsystem's order: where the file system does not answer, others can be added all the same.
      await making;
    }
    return this.run(nqn, async (subsystem) => {
      const asked = model.complete(nqn, parseNamespace({ ...options, bdev_name: bdevName }));
      const bdev = bdevs.get(asked.bdev_name);
      if (bdevs.isLeaving(bdev)) {
        throw new InvalidError(`bdev '${bdev.name}' is being deleted`);
      }
      const namespace = {
        ...model.addNamespace(nqn, asked),
        bdev,
        state: new NamespaceState(),
      };
      this.#parts.keptReservations.restore(namespace.uuid, namespace.state.reservations);
      namespace.state.busy = subsystem.sanitize.refusal;
      // In the map first: a client that connects meanwhile finds it there, and a guest that is told looks there.
      subsystem.namespaces.set(namespace.nsid, namespace);
      try {
        await subsystem.everyUser((user) => user.addNamespace(namespace));
      } catch (error) {
        await this.#drop(subsystem, namespace);
        throw error;
      }
      log.info({ nqn, nsid: namespace.nsid, bdev: bdev.name }, 'namespace added');
      events.emit({ type: 'namespace-added', nqn, nsid: namespace.nsid, bdev: bdev.name });
      return namespace.nsid;
    });
  }

  /** Resolves once no controller uses the namespace any more. */
  removeNamespace(nqn: string, nsid: number): Promise<void> {
    return this.run(nqn, async (subsystem) => {
      const namespace = subsystem.namespaces.get(nsid);
      if (namespace === undefined) {
        throw new InvalidError(`${nqn} has no namespace ${nsid}`, { key: 'nsid' });
      }
      await this.#drop(subsystem, namespace);
    });
  }

  /** If an endpoint fails to let go of it, the bdev stays claimed: its descriptor may still be in use. */
  async #drop(subsystem: Subsystem, { nsid, bdev }: TargetNamespace): Promise<void> {
    const { nqn } = subsystem;
    subsystem.namespaces.delete(nsid);
    subsystem.model.namespaces.delete(bdev.name);
    await subsystem.everyUser((user) => user.removeNamespace(nsid));
    this.#parts.bdevs.release(bdev);
    this.#parts.log.info({ nqn, nsid }, 'namespace removed');
    this.#parts.events.emit({ type: 'namespace-removed', nqn, nsid, bdev: bdev.name });
  }

  // --- for the changes of bdevs -----------------------------------------------------------------------------------

  /** Calls those who have a bdev open as a namespace of the subsystem that uses it, in its order. Resolves with the namespace that it is there, if any. */
  async tellUser(
    bdev: Disk,
    operation: (user: NamespaceUser, namespace: TargetNamespace) => Promise<void>,
  ): Promise<{ readonly nqn: string; readonly nsid: number } | undefined> {
    return this.#withNamespace(bdev, async (owner, namespace) => {
      await owner.everyUser((user) => operation(user, namespace));
      return { nqn: owner.nqn, nsid: namespace.nsid };
    });
  }

  /** Removes the namespace that uses a bdev. Rejects with EBUSY if an earlier removal left it in use. */
  async abandon(bdev: Disk): Promise<void> {
    await this.#withNamespace(bdev, (owner, namespace) => this.#drop(owner, namespace));
    if (this.#parts.bdevs.claimOf(bdev) !== undefined) {
      throw new ErrnoError('EBUSY', `an earlier removal of bdev '${bdev.name}' did not finish`);
    }
  }

  async #withNamespace<T>(
    bdev: Disk,
    operation: (owner: Subsystem, namespace: TargetNamespace) => Promise<T>,
  ): Promise<T | undefined> {
    const { subsystems, bdevs, changes } = this.#parts;
    const owner = subsystems.get(bdevs.claimOf(bdev) ?? '');
    if (owner === undefined) {
      return undefined;
    }
    return changes.orders.run(owner, async () => {
      const namespace = owner.namespaceOf(bdev);
      return namespace === undefined ? undefined : operation(owner, namespace);
    });
  }
}
