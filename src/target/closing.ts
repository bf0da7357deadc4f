/**
 * The end of a target: disconnects all clients, makes all data durable, and frees everything: all at once, so that what hangs holds up nothing
 * else. What is not done yet is still among the subsystems and bdevs. Owned by main.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Disk } from '../bdev/disk.ts';
import { describeError } from '../util/errors.ts';
import type { BdevChanges } from './bdev-changes.ts';
import type { Listeners } from './listeners.ts';
import type { Parts } from './parts.ts';
import type { Subsystem } from './subsystem.ts';

/** How long a VM may take to go before the disks are made durable that it has. Milliseconds. */
const FLUSH_ANYWAY_MS = 2000;

export class Closing {
  readonly #parts: Parts;
  readonly #listeners: Listeners;
  readonly #bdevChanges: BdevChanges;

  constructor(parts: Parts, listeners: Listeners, bdevChanges: BdevChanges) {
    this.#parts = parts;
    this.#listeners = listeners;
    this.#bdevChanges = bdevChanges;
  }

  /** `quiet`: ends what goes on by itself. Never rejects: what fails is logged, and resolves with that in words. */
  async run(quiet: () => void): Promise<readonly string[]> {
    const { changes, bdevs, subsystems } = this.#parts;
    changes.close();
    bdevs.stopWaiting();
    bdevs.cancelAll();
    quiet();
    const vms = new Map(
      [...subsystems.values()].map((subsystem) => [subsystem.nqn, this.#closeSubsystem(subsystem)]),
    );
    const disks = bdevs
      .list()
      .map((bdev) => this.#closeBdev(bdev, vms.get(bdevs.userOf(bdev) ?? '')));
    const failures = await Promise.all([...vms.values(), ...disks]);
    return failures.filter((failure) => failure !== undefined);
  }

  async #closeSubsystem(subsystem: Subsystem): Promise<string | undefined> {
    const failure = await this.#try('closing a listener', () =>
      this.#listeners.closeAll(subsystem),
    );
    // What is kept of a sanitize operation stays: it goes on after a restart.
    await subsystem.endMaintenance();
    this.#parts.subsystems.delete(subsystem.nqn);
    return failure;
  }

  /** `gone`: the VM that uses it is. */
  async #closeBdev(
    bdev: Disk,
    gone: Promise<unknown> = Promise.resolve(),
  ): Promise<string | undefined> {
    const sync = () => this.#try(`syncing bdev '${bdev.name}'`, () => bdev.sync());
    const late = delay(FLUSH_ANYWAY_MS, true, { ref: false });
    if ((await Promise.race([gone, late])) === true) {
      // What the guest was told is done becomes durable, also if another of its disks holds it up for ever.
      await sync();
      await gone;
    }
    const failure = await sync();
    await this.#bdevChanges.closed(bdev, this.#parts.bdevs.remove(bdev));
    return failure;
  }

  /** Resolves with what failed, in words. */
  async #try(what: string, operation: () => Promise<void>): Promise<string | undefined> {
    try {
      await operation();
      return undefined;
    } catch (error) {
      this.#parts.log.error({ err: error }, `${what} failed`);
      return `${what} failed: ${describeError(error)}`;
    }
  }
}
