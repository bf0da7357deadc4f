/** One listener: a vfio-user socket, and a new NVMe device for each client that comes. Owned by main. */
import { Op } from '../bdev/op.ts';
import type { PassedSocket } from '../native/index.ts';
import type { SubsystemEvent } from '../nvme/host.ts';
import type { ReactorPool } from '../reactor/pool.ts';
import { VfioUserCommand } from '../spec/vfio-user.ts';
import { describeError, InvalidError } from '../util/errors.ts';
import { type Logger, peerLogger } from '../util/log.ts';
import type { Client, VfioUserDevice } from '../vfio-user/device.ts';
import { Refusal } from '../vfio-user/refusal.ts';
import { VfioUserServer } from '../vfio-user/server.ts';
import type { SessionEvent } from '../vfio-user/session.ts';
import { NvmeDevice } from './device.ts';
import { guestEvents, type NewEvent, type TargetEvents } from './events.ts';
import type {
  AccessChange,
  ControllerInfo,
  EndpointView,
  Namespace,
  SubsystemView,
  TransportOptions,
} from './types.ts';

export interface EndpointOptions {
  readonly subsystem: SubsystemView;
  readonly transport: TransportOptions;
  readonly socketPath: string;
  /** A socket to use instead of one at that path. */
  readonly passed?: PassedSocket | undefined;
  /** The only client that can come, of a socket passed connected, is gone. */
  readonly onExhausted?: (() => void) | undefined;
  /** The endpoint is closed, and needs the passed socket no more. */
  readonly onClosed?: (() => void) | undefined;
  readonly reactors: ReactorPool;
  readonly events: TargetEvents;
  readonly log: Logger;
}

/** Refused commands of one client that are told of as events. */
const MAX_TOLD_REFUSALS = 10;

export class Endpoint implements EndpointView {
  readonly socketPath: string;
  readonly #log: Logger;
  readonly #where: { readonly nqn: string; readonly socket: string };
  readonly #emit: (event: NewEvent) => void;
  readonly #options: EndpointOptions;
  /** Of devices. */
  readonly #deviceLog: Logger;
  readonly #server: VfioUserServer;
  /** That of the client that is connected. */
  #device: NvmeDevice | undefined;
  /** Settles when that client is gone. */
  #gone: Promise<void> = Promise.resolve();
  #settleGone: () => void = () => {};
  readonly #onClosed: () => void;
  #closing: Promise<void> | undefined;
  #refusals = 0;
  /** Monotonic, ms. */
  #connectedAt = 0;

  /** Rejects with a system error if it cannot listen. */
  static async listen(options: EndpointOptions): Promise<Endpoint> {
    return new Endpoint(options);
  }

  private constructor(options: EndpointOptions) {
    this.#options = options;
    this.socketPath = options.socketPath;
    this.#onClosed = options.onClosed ?? (() => {});
    this.#where = { nqn: options.subsystem.nqn, socket: options.socketPath };
    this.#log = peerLogger(options.log, 'vfio-user', this.#where);
    this.#deviceLog = peerLogger(options.log, 'nvme', this.#where);
    this.#emit = guestEvents(options.events, this.#where);
    this.#server = new VfioUserServer({
      path: options.socketPath,
      passed: options.passed,
      onExhausted: options.onExhausted,
      accept: (client) => this.#accept(client),
      onEvent: (event) => this.#tell(event),
    });
  }

  #accept(client: Client): VfioUserDevice {
    const device = new NvmeDevice({
      ...this.#options,
      client,
      log: this.#deviceLog,
      emit: this.#emit,
    });
    this.#device = device;
    this.#gone = new Promise((resolve) => {
      this.#settleGone = resolve;
    });
    return device.pci;
  }

  get controller(): ControllerInfo | undefined {
    return this.#device?.info;
  }

  addNamespace(namespace: Namespace): Promise<void> {
    return this.#tellDevice((device) => device.addNamespace(namespace));
  }

  changeAccess(change: AccessChange): Promise<void> {
    return this.#tellDevice((device) => device.changeAccess(change));
  }

  subsystemEvent(event: SubsystemEvent): void {
    this.#device?.subsystemEvent(event);
  }

  resetController(): void {
    this.#device?.resetController();
  }

  limitNamespace(nsid: number, limits: SharedArrayBuffer | undefined): Promise<void> {
    return this.#tellDevice((device) => device.limitNamespace(nsid, limits));
  }

  removeNamespace(nsid: number): Promise<void> {
    return this.#tellDevice((device) => device.removeNamespace(nsid));
  }

  /** Asks the device, if there is one. What it does not answer for a disk that hangs ends with the client: then nothing uses the disk. */
  async #tellDevice(operation: (device: NvmeDevice) => Promise<void>): Promise<void> {
    if (this.#device !== undefined) {
      await Promise.race([operation(this.#device), this.#gone]);
    }
  }

  async moveQueue(cqid: number, reactor: number): Promise<number> {
    if (this.#device === undefined) {
      throw new InvalidError('there is no controller: no client is connected');
    }
    return this.#device.moveQueue(cqid, reactor);
  }

  close(): Promise<void> {
    this.#closing ??= this.#server.close().then(this.#onClosed);
    return this.#closing;
  }

  /** The last client's memory is still in use. */
  #lingers(end: Promise<void>): void {
    this.#log.warn(
      'a disk holds on to the memory of a client that has gone: it is kept until the disk answers',
    );
    end.then(
      () => this.#log.info('the memory of a client that had gone is free'),
      (error: unknown) => this.#log.error({ err: error }, 'client not cleaned up after'),
    );
  }

  #tell(event: SessionEvent): void {
    switch (event.type) {
      case 'connected':
        this.#refusals = 0;
        this.#connectedAt = performance.now();
        this.#log.info({ cntlid: this.controller?.cntlid }, 'client connected');
        this.#emit({ type: 'client-connected', ...this.#where });
        break;
      case 'refused': {
        this.#refusals += 1;
        const { error } = event;
        const command = commandName(event.command);
        const reason = explain(error);
        if (event.known) {
          this.#log.warn({ command, reason }, 'command refused');
        } else {
          this.#log.error({ command, err: error }, 'command failed: a bug of ours');
        }
        if (this.#refusals <= MAX_TOLD_REFUSALS) {
          const message = `${command} was refused: ${reason}`;
          this.#emit({ type: 'error', ...this.#where, message });
        }
        break;
      }
      case 'failed':
        this.#log.error({ err: event.error }, 'client not cleaned up after');
        this.#emit({
          type: 'error',
          ...this.#where,
          message: `a client could not be cleaned up after: ${describeError(event.error)}`,
        });
        break;
      case 'lingers':
        this.#lingers(event.end);
        break;
      case 'disconnected':
        this.#logGone(event.reason, event.served);
        this.#device = undefined;
        this.#settleGone();
        if (event.served) {
          this.#emit({ type: 'client-gone', ...this.#where, message: event.reason });
        }
        break;
    }
  }

  #logGone(reason: string, served: boolean): void {
    if (served) {
      const seconds = Math.round(performance.now() - this.#connectedAt) / 1000;
      const done = this.#device?.done;
      const [reads, writes] = [done?.of(Op.READ).ops, done?.of(Op.WRITE).ops];
      const errors = [...(done?.errors.values() ?? [])].reduce((sum, count) => sum + count, 0);
      const served = { reads, writes, flushes: done?.flushes, errors };
      this.#log.info({ reason, seconds, ...served }, 'client gone');
    } else {
      this.#log.debug({ reason }, 'gone before a version was agreed on');
    }
  }
}

function commandName(command: number): string {
  const known = Object.entries(VfioUserCommand).find(([, value]) => value === command);
  return known?.[0] ?? `command ${command}`;
}

/** A refusal says more than its errno. */
function explain(error: unknown): string {
  return error instanceof Refusal ? error.message : describeError(error);
}
