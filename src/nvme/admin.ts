/**
 * Admin commands: opcode → what is done, and the state that it is done to. NVMe Base 2.0 §5. Owned by main; may wait for reactors.
 *
 * The commands themselves are in `admin/`, by subject; the pages of the logs in `logs/`, the features in `features/`.
 */

import { AsyncCommandSetInfo, AsyncEventType, AsyncSmartInfo } from '../spec/events.ts';
import { CriticalWarning, Lid } from '../spec/logs.ts';
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
import { waitsForSanitize } from './admin/sanitize.ts';
import { adminCommands } from './admin/table.ts';
import type { AsyncEvents } from './events.ts';
import { Features } from './features/state.ts';
import type { ControllerConfig, ControllerHost, SubsystemEvent } from './host.ts';
import { ChangedNamespaces } from './logs/changed.ts';
import { ErrorLog } from './logs/errors.ts';
import { ReservationNotices } from './logs/reservations.ts';
import { Health } from './logs/smart.ts';
import { Telemetry } from './logs/telemetry.ts';
import { SelfTests } from './self-test.ts';

/** What the commands need of the controller. */
type AdminParts = Pick<AdminContext, 'keepAlive' | 'setShadow'> & { readonly events: AsyncEvents };

export class Admin implements AdminContext {
  readonly config: ControllerConfig;
  readonly host: ControllerHost;
  readonly #commands: readonly AdminCommand[];
  readonly features: Features;
  readonly events: AsyncEvents;
  readonly errors = new ErrorLog();
  readonly health: Health;
  readonly changed = new ChangedNamespaces();
  readonly telemetry: Telemetry;
  readonly reservations = new ReservationNotices();
  readonly selfTests: SelfTests;
  readonly aborts = { count: 0 };
  readonly queues: AdminIoQueues;
  readonly data: AdminData;
  readonly keepAlive: AdminParts['keepAlive'];
  readonly setShadow: AdminParts['setShadow'];
  epoch = 0;
  readonly #byOpcode: ReadonlyMap<number, AdminCommand>;
  /** What the host was told of, and still is so: bits of CriticalWarning. */
  #warned = 0;

  constructor(config: ControllerConfig, host: ControllerHost, parts: AdminParts) {
    this.config = config;
    this.host = host;
    this.#commands = adminCommands(config);
    this.#byOpcode = new Map(this.#commands.map((command) => [command.opcode, command]));
    this.events = parts.events;
    this.keepAlive = parts.keepAlive;
    this.setShadow = parts.setShadow;
    this.queues = new AdminIoQueues(config, host, () => this.features.queues.value);
    this.features = new Features(config.maxIoQueuePairs, () => this.queues.exist);
    this.health = new Health(this.features.temperature, () => host.unreliable);
    this.telemetry = new Telemetry(() => host.describe());
    this.selfTests = new SelfTests(host, () => this.health.powerOnHours);
    this.data = new AdminData(host);
  }

  get commands(): readonly AdminCommand[] {
    return this.#commands.filter((command) => this.#isOffered(command));
  }

  #isOffered({ needsSharedMemory }: AdminCommand): boolean {
    return !needsSharedMemory || this.host.remote === undefined;
  }

  /** All I/O queues are gone; commands about them that wait for their turn are not carried out. */
  dropQueues(): void {
    this.epoch += 1;
    this.queues.reset();
    this.#warned = 0;
  }

  /** What a controller level reset forgets beside queues. */
  reset(): void {
    this.events.reset();
    this.features.reset();
    this.changed.clear();
    this.reservations.reset();
    this.selfTests.reset();
  }

  /** The host hears of a reservation, if it is its own and it wants to. */
  reservationNotice(event: SubsystemEvent & { kind: 'reservation' }): void {
    const { nsid, notice, hosts } = event;
    if (hosts.includes(this.host.hostName) && this.features.reservationMask.lets(nsid, notice)) {
      this.reservations.add(nsid, notice);
      this.tellReservations();
    }
  }

  /** There is a notice about reservations to be read. */
  tellReservations(): void {
    if (this.reservations.any) {
      this.events.add({
        type: AsyncEventType.COMMAND_SET,
        info: AsyncCommandSetInfo.RESERVATION_LOG,
        logPage: Lid.RESERVATION,
      });
    }
  }

  /** Carries a command out: at once, unless it has to wait for a reactor. Each ends in one outcome. */
  execute(command: Command): Outcome | Promise<Outcome> {
    // Admin commands are not fused, and SGLs are not for them over PCIe.
    if ((command.cdw0 & (Cdw0.mask.fuse | Cdw0.mask.psdt)) !== 0) {
      return done(Status.INVALID_FIELD);
    }
    const known = this.#byOpcode.get(command.opcode);
    if (known === undefined || !this.#isOffered(known)) {
      return done(Status.INVALID_OPCODE);
    }
    const { refusal } = this.host.sanitize;
    return refusal !== Status.SUCCESS && waitsForSanitize(command.opcode)
      ? done(refusal)
      : this.data.carryOut(command, () => known.run(this, command));
  }

  /**
   * Tells of critical warnings, once for each time that one comes up (§5.27.1.8). The temperature never changes: its thresholds do, and whether
   * the host wants to be told.
   */
  checkHealth(): void {
    const warnings = this.health.warnings & this.features.wantedWarnings;
    const { temperature, reliability } = CriticalWarning.decode(warnings & ~this.#warned);
    this.#warned = warnings;
    if (temperature) {
      this.#warn(AsyncSmartInfo.TEMPERATURE_THRESHOLD);
    }
    if (reliability) {
      this.#warn(AsyncSmartInfo.RELIABILITY);
    }
  }

  #warn(info: number): void {
    this.events.add({ type: AsyncEventType.SMART, info, logPage: Lid.SMART });
  }
}
