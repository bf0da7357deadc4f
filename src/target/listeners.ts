/** Listeners of subsystems: making and closing their endpoints. The caller runs that in the order of the subsystem. Owned by main. */
import { statPath } from '../native/paths.ts';
import { describeError, ErrnoError, InvalidError, withErrnoDetail } from '../util/errors.ts';
import type { ListenAddress } from './model/plan.ts';
import type { Transport } from './model/transport.ts';
import type { Parts } from './parts.ts';
import type { Listener, Subsystem } from './subsystem.ts';
import type { EndpointView } from './types.ts';

/** Makes the endpoint at a socket. Rejects with a system error. */
export type Listen = (
  subsystem: Subsystem,
  transport: Transport,
  socketPath: string,
) => Promise<EndpointView>;

export class Listeners {
  readonly #parts: Parts;
  readonly #listen: Listen;
  /** Sockets that are being made. */
  readonly #making = new Set<string>();

  constructor(parts: Parts, listen: Listen) {
    this.#parts = parts;
    this.#listen = listen;
  }

  /** Listens at `traddr`/cntrl; or, if the socket was passed to the process, at `passedAt`. Resolves with the path of the socket. */
  async add(subsystem: Subsystem, address: ListenAddress, passedAt?: string): Promise<string> {
    const { nqn } = subsystem;
    const { model, changes, events, log } = this.#parts;
    model.checkListener(nqn, address, passedAt);
    if (passedAt === undefined) {
      await this.#checkFolder(subsystem, address.traddr);
    }
    // Anew: another subsystem may have been faster.
    const socketPath = model.checkListener(nqn, address, passedAt);
    const key = 'listen_address.traddr';
    if (this.#making.has(socketPath)) {
      throw new InvalidError(`${socketPath} is being made`, { key });
    }
    let endpoint: EndpointView;
    this.#making.add(socketPath);
    try {
      endpoint = await this.#listen(subsystem, model.checkTransport(), socketPath);
    } catch (error) {
      const cause = error instanceof ErrnoError ? error : withErrnoDetail(error, socketPath);
      throw new InvalidError(describeError(cause), { key, cause });
    } finally {
      this.#making.delete(socketPath);
    }
    if (subsystem.leaving || changes.closed) {
      await endpoint.close();
      throw new InvalidError(`${nqn} is being deleted`, { key: 'nqn' });
    }
    subsystem.model.listeners.set(socketPath, address);
    subsystem.listeners.set(socketPath, { address, endpoint });
    log.info({ nqn, socket: socketPath }, 'listening');
    events.emit({ type: 'listener-added', nqn, socket: socketPath });
    return socketPath;
  }

  async #checkFolder(subsystem: Subsystem, traddr: string): Promise<void> {
    const stats = await subsystem.unlessLeaving(statPath(subsystem.calls, traddr));
    if (subsystem.leaving) {
      throw new InvalidError(`${subsystem.nqn} is being deleted`, { key: 'nqn' });
    }
    if (stats?.kind !== 'folder') {
      throw new InvalidError(`there is no folder ${traddr}`, { key: 'listen_address.traddr' });
    }
  }

  /** Disconnects the client of a listener, and removes its socket. */
  async remove(subsystem: Subsystem, traddr: string): Promise<void> {
    const listener = subsystem.listenerAt(traddr);
    const { nqn } = subsystem;
    if (listener === undefined) {
      const key = 'listen_address.traddr';
      throw new InvalidError(`${nqn} does not listen at ${traddr}`, { key });
    }
    await this.#close(subsystem, listener.endpoint);
    this.#parts.log.info({ nqn, socket: listener.endpoint.socketPath }, 'listener removed');
  }

  async #close(subsystem: Subsystem, endpoint: EndpointView): Promise<void> {
    await endpoint.close();
    const { nqn, model } = subsystem;
    const { socketPath: socket } = endpoint;
    model.listeners.delete(socket);
    if (subsystem.listeners.delete(socket)) {
      this.#parts.events.emit({ type: 'listener-removed', nqn, socket });
    }
  }

  /** Each goes as soon as it is closed, whatever becomes of the others. */
  closeAll(subsystem: Subsystem): Promise<void> {
    return subsystem.everyEndpoint((endpoint) => this.#close(subsystem, endpoint));
  }

  /** Begins to close listeners. Whoever closes them again learns how that ended. */
  hangUp(listeners: Iterable<Listener>): void {
    for (const { endpoint } of listeners) {
      endpoint.close().catch(() => {});
    }
  }
}
