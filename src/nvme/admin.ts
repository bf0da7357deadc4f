/**
 * Admin commands: opcode → what is done, and the state that it is done to. NVMe Base 2.0 §5. Owned by main; may wait for reactors.
 *
 * The commands themselves are in `admin/`, by subject; the pages of the logs in `logs/`, the features in `features/`.
 */

import { AsyncEventType, AsyncSmartInfo } from '../spec/events.ts';
import { Lid } from '../spec/logs.ts';
import { Cdw0, Status } from '../spec/nvme.ts';
import {
  type AdminCommand,
  type AdminContext,
  type Command,
  done,
  type Outcome,
} from './admin/command.ts';
import { AdminData } from './admin/data.ts';
import { AdminIoQueues } from './admin/io-queues.ts';
import { adminCommands } from './admin/table.ts';
import type { AsyncEvents } from './events.ts';
import { Features } from './features/state.ts';
import type { ControllerConfig, ControllerHost } from './host.ts';
import { ChangedNamespaces } from './logs/changed.ts';
import { ErrorLog } from './logs/errors.ts';
import { Health } from './logs/smart.ts';

/** What the commands need of the controller. */
type AdminParts = Pick<AdminContext, 'keepAlive' | 'setShadow'> & { readonly events: AsyncEvents };

export class Admin implements AdminContext {
  readonly config: ControllerConfig;
  readonly host: ControllerHost;
  readonly commands: readonly AdminCommand[];
  readonly features: Features;
  readonly events: AsyncEvents;
  readonly errors = new ErrorLog();
  readonly health: Health;
  readonly changed = new ChangedNamespaces();
  readonly queues: AdminIoQueues;
  readonly data: AdminData;
  readonly keepAlive: AdminParts['keepAlive'];
  readonly setShadow: AdminParts['setShadow'];
  readonly #byOpcode: ReadonlyMap<number, AdminCommand>;
  /** The host was told that the temperature is beyond a threshold, and it still is. */
  #warned = false;

  constructor(config: ControllerConfig, host: ControllerHost, parts: AdminParts) {
    this.config = config;
    this.host = host;
    this.commands = adminCommands(config);
    this.#byOpcode = new Map(this.commands.map((command) => [command.opcode, command]));
    this.events = parts.events;
    this.keepAlive = parts.keepAlive;
    this.setShadow = parts.setShadow;
    this.queues = new AdminIoQueues(config, host, () => this.features.queues.value);
    this.features = new Features(config.maxIoQueuePairs, () => this.queues.exist);
    this.health = new Health(this.features.temperature);
    this.data = new AdminData(host.memory);
  }

  /** All I/O queues are gone; commands about them that wait for their turn are not carried out. */
  dropQueues(): void {
    this.queues.reset();
    this.#warned = false;
  }

  /** What a controller level reset forgets beside queues. */
  reset(): void {
    this.events.reset();
    this.features.reset();
    this.changed.clear();
  }

  /** Carries a command out: at once, unless it has to wait for a reactor. Each ends in one outcome. */
  execute(command: Command): Outcome | Promise<Outcome> {
    // Admin commands are not fused, and SGLs are not for them over PCIe.
    if ((command.cdw0 & (Cdw0.mask.fuse | Cdw0.mask.psdt)) !== 0) {
      return done(Status.INVALID_FIELD);
    }
    const known = this.#byOpcode.get(command.opcode);
    return known === undefined ? done(Status.INVALID_OPCODE) : known.run(this, command);
  }

  /**
   * Tells of a temperature beyond a threshold, once for each time that it gets there (§5.27.1.3). It never changes: the thresholds do, and
   * whether the host wants to be told.
   */
  checkTemperature(): void {
    const warns = this.health.warnsOfTemperature && this.features.wantsTemperature;
    if (warns && !this.#warned) {
      this.events.add({
        type: AsyncEventType.SMART,
        info: AsyncSmartInfo.TEMPERATURE_THRESHOLD,
        logPage: Lid.SMART,
      });
    }
    this.#warned = warns;
  }
}
