/** The features of one controller: all there are, and those that others ask about. NVMe Base 2.0 §5.27.1. Owned by main. */
import {
  Arbitration,
  AsyncEventConfig,
  Fid,
  PowerManagement,
  VolatileWriteCache,
  WriteAtomicity,
} from '../../spec/features.ts';
import { word } from '../../util/bits.ts';
import { type AsyncNotice, NOTICES } from '../events.ts';
import type { ControllerHost } from '../host.ts';
import { type Coalescing, CoalescingFeatures } from './coalescing.ts';
import { ErrorRecoveries } from './errors.ts';
import { DwordFeature, type Feature } from './feature.ts';
import { HostBehaviorSupport } from './host-behavior.ts';
import { HostIdentity } from './host-identifier.ts';
import { QueueCount } from './queues.ts';
import { NotificationMask, PersistenceFeature } from './reservations.ts';
import { TemperatureThresholds } from './temperature.ts';
import { HostTimestamp, KeepAliveTimer } from './time.ts';
import { NamespaceWriteProtection } from './write-protection.ts';

/** No limit of commands in a burst. */
const ARBITRATION = Arbitration.encode({ ab: 7 });
const { smart } = AsyncEventConfig.fields;
/** Events that a host can ask for: those of OAES, and critical warnings. */
const ASYNC_EVENTS = word('AsyncEvents', {
  smart,
  ...Object.fromEntries(NOTICES.map((notice) => [notice, AsyncEventConfig.fields[notice]])),
});
/** There is one power state, and one combination of command sets, and each is number 0. */
const ONE_STATE = word('OneState', { wh: PowerManagement.fields.wh });
const NONE = word('None', {});

export class Features {
  readonly queues: QueueCount;
  readonly temperature = new TemperatureThresholds();
  readonly keepAlive = new KeepAliveTimer();
  readonly timestamp = new HostTimestamp();
  readonly hostIdentity = new HostIdentity();
  readonly reservationMask = new NotificationMask();
  readonly hostBehavior = new HostBehaviorSupport();
  readonly #writeCache = new DwordFeature(
    Fid.VOLATILE_WRITE_CACHE,
    VolatileWriteCache,
    VolatileWriteCache.encode({ wce: true }),
  );
  readonly #coalescing: CoalescingFeatures;
  readonly #asyncEvents = new DwordFeature(Fid.ASYNC_EVENT_CONFIG, ASYNC_EVENTS);
  /** In the order of their identifiers. */
  readonly all: readonly Feature[];

  /** `maxQueues`: I/O queue pairs that the controller has. `queuesExist`: some were created, so that their number is settled. */
  constructor(maxQueues: number, queuesExist: () => boolean) {
    this.queues = new QueueCount(maxQueues, queuesExist);
    this.#coalescing = new CoalescingFeatures(maxQueues);
    this.all = [
      new DwordFeature(Fid.ARBITRATION, Arbitration, ARBITRATION),
      new DwordFeature(Fid.POWER_MANAGEMENT, ONE_STATE),
      this.temperature,
      new ErrorRecoveries(),
      this.#writeCache,
      this.queues,
      this.#coalescing.amount,
      this.#coalescing.vectors,
      new DwordFeature(Fid.WRITE_ATOMICITY, WriteAtomicity),
      this.#asyncEvents,
      this.timestamp,
      this.keepAlive,
      this.hostBehavior,
      new DwordFeature(Fid.IO_COMMAND_SET_PROFILE, NONE),
      this.hostIdentity,
      this.reservationMask,
      new PersistenceFeature(),
      new NamespaceWriteProtection(),
    ];
  }

  find(fid: number): Feature | undefined {
    return this.all.find((feature) => feature.fid === fid);
  }

  reset(): void {
    for (const feature of this.all) {
      feature.reset();
    }
  }

  get coalescing(): Coalescing {
    return this.#coalescing.current;
  }

  get writeCache(): boolean {
    return VolatileWriteCache.decode(this.#writeCache.value).wce;
  }

  /** The host wants to be told of it. */
  wants(notice: AsyncNotice): boolean {
    return (this.#asyncEvents.value & AsyncEventConfig.mask[notice]) !== 0;
  }

  /** Critical warnings that the host wants to be told of: bits of CriticalWarning. */
  get wantedWarnings(): number {
    return AsyncEventConfig.decode(this.#asyncEvents.value).smart;
  }

  /** The features that the host set to something else than their default, by name. */
  changed(host: ControllerHost): Record<string, number> {
    return Object.fromEntries(
      Object.entries(Fid).flatMap(([name, fid]): [string, number][] => {
        const feature = this.find(fid);
        if (feature === undefined || feature.dataBytes !== undefined || feature.ofActive) {
          return [];
        }
        const { dw0 } = feature.get('current', 0, 0, host);
        if (dw0 === feature.get('default', 0, 0, host).dw0) {
          return [];
        }
        return [[name, feature === this.queues ? this.queues.value : dw0]];
      }),
    );
  }
}
