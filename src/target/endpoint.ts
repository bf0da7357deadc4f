/** One listener: a vfio-user socket, and a new NVMe device for each client that comes. Owned by main. */
import { Op } from '../bdev/op.ts';
import type { Tally } from '../bdev/tally.ts';
import { DescriptorCloser } from '../native/descriptor-closer.ts';
import type { PassedSocket } from '../native/index.ts';
import type { ReactorPool } from '../reactor/pool.ts';
import { VfioUserCommand } from '../spec/vfio-user.ts';
import { describeError, InvalidError } from '../util/errors.ts';
import { type Logger, peerLogger } from '../util/log.ts';
import type { DeviceRegion, DmaRegion, IrqIndex, VfioUserDevice } from '../vfio-user/device.ts';
import { Refusal } from '../vfio-user/refusal.ts';
import { VfioUserServer } from '../vfio-user/server.ts';
import type { SessionEvent } from '../vfio-user/session.ts';
import { NvmeDevice } from './device.ts';
import { guestEvents, type NewEvent, type TargetEvents } from './events.ts';
import type {
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
/** How long the next client waits for the last one's commands. Milliseconds. */
const LINGER_MS = 1000;
/** Clients whose memory a disk still holds while the next is served; beyond, it waits. */
const MAX_LINGERING_CLIENTS = 4;

export class Endpoint implements EndpointView {
  readonly socketPath: string;
  readonly #log: Logger;
  readonly #where: { readonly nqn: string; readonly socket: string };
  readonly #emit: (event: NewEvent) => void;
  readonly #current: CurrentDevice;
  readonly #server: VfioUserServer;
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
    this.socketPath = options.socketPath;
    this.#onClosed = options.onClosed ?? (() => {});
    this.#where = { nqn: options.subsystem.nqn, socket: options.socketPath };
    this.#log = peerLogger(options.log, 'vfio-user', this.#where);
    const log = peerLogger(options.log, 'nvme', this.#where);
    const emit = guestEvents(options.events, this.#where);
    this.#emit = emit;
    const closer = new DescriptorCloser();
    this.#current = new CurrentDevice(
      () => new NvmeDevice({ ...options, log, emit, closer }),
      (end) => this.#lingers(end),
    );
    this.#server = new VfioUserServer({
      path: options.socketPath,
      passed: options.passed,
      onExhausted: options.onExhausted,
      device: this.#current,
      closer,
      onEvent: (event) => this.#tell(event),
    });
  }

  get controller(): ControllerInfo | undefined {
    return this.#current.device?.info;
  }

  addNamespace(namespace: Namespace): Promise<void> {
    return this.#current.tell((device) => device.addNamespace(namespace));
  }

  limitNamespace(nsid: number, limits: SharedArrayBuffer | undefined): Promise<void> {
    return this.#current.tell((device) => device.limitNamespace(nsid, limits));
  }

  removeNamespace(nsid: number): Promise<void> {
    return this.#current.tell((device) => device.removeNamespace(nsid));
  }

  async moveQueue(cqid: number, reactor: number): Promise<number> {
    const { device } = this.#current;
    if (device === undefined) {
      throw new InvalidError('there is no controller: no client is connected');
    }
    return device.moveQueue(cqid, reactor);
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
      case 'disconnected':
        this.#logGone(event.reason, event.served);
        if (event.served) {
          this.#emit({ type: 'client-gone', ...this.#where, message: event.reason });
        }
        break;
    }
  }

  #logGone(reason: string, served: boolean): void {
    if (served) {
      const seconds = Math.round(performance.now() - this.#connectedAt) / 1000;
      const done = this.#current.lastDone;
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

/** The device of the client that is connected: what the server talks to, whoever the client is. */
class CurrentDevice implements VfioUserDevice {
  device: NvmeDevice | undefined;
  /** What the last client had done when it went. */
  lastDone: Tally | undefined;
  readonly #make: () => NvmeDevice;
  /** Told of the end of a client that the next one does not wait for. */
  readonly #onLinger: (end: Promise<void>) => void;
  #lingering = 0;
  /** Settles when the client is gone: with an error if its device could not be cleaned up. */
  #gone: Promise<void> = Promise.resolve();
  #settleGone: (end: Promise<void>) => void = () => {};

  constructor(make: () => NvmeDevice, onLinger: (end: Promise<void>) => void) {
    this.#make = make;
    this.#onLinger = onLinger;
  }

  get #connected(): NvmeDevice {
    if (this.device === undefined) {
      throw new Error('a command came without a client');
    }
    return this.device;
  }

  /** Asks the device, if there is one. What it does not answer for a disk that hangs ends with the client: then nothing uses the disk. */
  async tell(operation: (device: NvmeDevice) => Promise<void>): Promise<void> {
    const { device } = this;
    if (device !== undefined) {
      await Promise.race([operation(device), this.#gone]);
    }
  }

  clientConnected(socket: number): void {
    this.device = this.#make();
    this.#gone = new Promise((resolve) => {
      this.#settleGone = resolve;
    });
    this.#gone.catch(() => {});
    this.device.clientConnected(socket);
  }

  /**
   * A disk of this machine that hangs may hold on to the client's memory for as long as it likes. That memory is kept then, and the next client
   * served meanwhile: it gets a device of its own.
   */
  async clientGone(): Promise<void> {
    const device = this.#connected;
    const end = device.clientGone();
    const served =
      this.#lingering < MAX_LINGERING_CLIENTS ? Promise.race([end, this.#linger(end)]) : end;
    this.#settleGone(served);
    try {
      await served;
    } finally {
      this.lastDone = device.done;
      this.device = undefined;
    }
  }

  /** Resolves after a while, and tells if the client's end is not over by then. */
  async #linger(end: Promise<void>): Promise<void> {
    let over = false;
    const ended = end.finally(() => {
      over = true;
    });
    ended.catch(() => {});
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, LINGER_MS);
      void ended
        .catch(() => {})
        .then(() => clearTimeout(timer))
        .then(resolve);
    });
    if (!over) {
      this.#lingering += 1;
      this.#onLinger(
        ended.finally(() => {
          this.#lingering -= 1;
        }),
      );
    }
  }

  get regions(): readonly DeviceRegion[] {
    return this.#connected.regions;
  }

  get irqs(): readonly IrqIndex[] {
    return this.#connected.irqs;
  }

  dmaMap(region: DmaRegion): Promise<void> {
    return this.#connected.dmaMap(region);
  }

  dmaUnmap(iova: number, size: number): Promise<void> {
    return this.#connected.dmaUnmap(iova, size);
  }

  regionRead(index: number, offset: number, into: Uint8Array): void {
    this.#connected.regionRead(index, offset, into);
  }

  regionWrite(index: number, offset: number, data: Uint8Array): Promise<void> {
    return this.#connected.regionWrite(index, offset, data);
  }

  setIrqEventfds(
    index: number,
    start: number,
    fds: readonly (number | undefined)[],
  ): Promise<void> {
    return this.#connected.setIrqEventfds(index, start, fds);
  }

  setIrqUnmaskEventfd(index: number, fd: number | undefined): void {
    this.#connected.setIrqUnmaskEventfd(index, fd);
  }

  triggerIrqs(index: number, start: number, fire: readonly boolean[]): void {
    this.#connected.triggerIrqs(index, start, fire);
  }

  maskIrqs(index: number, start: number, which: readonly boolean[], mask: boolean): void {
    this.#connected.maskIrqs(index, start, which, mask);
  }

  disableIrqs(index: number): Promise<void> {
    return this.#connected.disableIrqs(index);
  }

  reset(): Promise<void> {
    return this.#connected.reset();
  }
}
