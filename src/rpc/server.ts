/**
 * The JSON-RPC socket. Each client may have many requests under way and gets the answers as they come; one that does not
 * read its answers is no longer read from, and harms nobody else.
 */
import { chmodSync, lchownSync } from 'node:fs';
import { createServer, type Server, Socket } from 'node:net';
import { CLIENT_STALL_MS, MAX_RPC_CLIENTS } from '../limits.ts';
import type { PassedSocket } from '../native/index.ts';
import { withErrnoDetail } from '../util/errors.ts';
import { longestIdle, type Occupant } from '../util/idle.ts';
import type { Logger } from '../util/log.ts';
import { answer } from './answer.ts';
import type { Dispatcher, Outlet } from './dispatcher.ts';
import { JsonStream, type JsonValue } from './json-stream.ts';
import { encode, errorText, RpcCode, RpcError } from './protocol.ts';
import { claimSocketPath } from './socket-path.ts';

/** Requests of one client under way at the same time. A batch, whose answers may be long, counts as so many: the next waits for its end. */
const MAX_REQUESTS_IN_FLIGHT = 64;
/** Answers that a client has not read, in bytes, above which no more of its requests are taken. */
const MAX_UNREAD_BYTES = 1024 * 1024;
/** The same, above which it gets no notifications. */
const MAX_UNREAD_NOTIFICATION_BYTES = 64 * 1024;
/** How long a client may take to read its last answers when the server closes. */
const CLOSE_TIMEOUT_MS = 500;

class Client implements Outlet, Occupant {
  readonly socket: Socket;
  readonly #dispatcher: Dispatcher;
  readonly #stream = new JsonStream();
  #inFlight = 0;
  /** No more requests are taken: the client ended its side, or sent what is not JSON, or the server closes. */
  #ended = false;
  /** It gets notifications. */
  #watching = false;
  /** When the client last began or ended something: it came, a request or its answer began, what was written is read. */
  #turned = performance.now();
  /** The first bytes of the request under way have come. */
  #begun = false;
  #onReady: () => void = () => {};
  #onClose: () => void = () => {};

  constructor(socket: Socket, dispatcher: Dispatcher, log: Logger) {
    this.socket = socket;
    this.#dispatcher = dispatcher;
    socket.on('data', (chunk) => {
      if (!this.#ended) {
        this.#stream.push(chunk);
        this.#pump();
        this.#noteBegun();
      }
    });
    socket.on('drain', () => {
      this.#turned = performance.now();
      this.#pump();
      this.#onReady();
    });
    socket.on('end', () => {
      if (!this.#ended && this.#stream.pending) {
        this.#refuse(new RpcError(RpcCode.PARSE_ERROR, 'Parse error: the request is not complete'));
      }
      this.end();
    });
    socket.on('error', (error) => log.debug({ reason: error.message }, 'rpc client lost'));
    socket.on('close', () => this.#onClose());
  }

  // --- idleness -----------------------------------------------------------------------------------------------------

  /** A client that takes too long to send a request, however steadily, or to read an answer, is idle from when it began with it. */
  get idleSince(): number | undefined {
    if (this.#inFlight > 0) {
      return undefined;
    }
    const stalls = this.#begun || this.socket.writableLength > 0;
    const waits = stalls && performance.now() - this.#turned < CLIENT_STALL_MS;
    return waits || (this.#watching && !stalls) ? undefined : this.#turned;
  }

  /** Makes room for another client. */
  drop(): void {
    this.socket.destroy();
  }

  #noteBegun(): void {
    const begun = this.#stream.pending;
    if (begun && !this.#begun) {
      this.#turned = performance.now();
    }
    this.#begun = begun;
  }

  // --- notifications ------------------------------------------------------------------------------------------------

  get ready(): boolean {
    return !this.#ended && this.socket.writableLength <= MAX_UNREAD_NOTIFICATION_BYTES;
  }

  notify(method: string, params: unknown): void {
    this.#send(encode({ jsonrpc: '2.0', method, params }));
  }

  onReady(listener: () => void): void {
    this.#onReady = listener;
  }

  onClose(listener: () => void): void {
    this.#watching = true;
    this.#onClose = listener;
    if (this.socket.destroyed) {
      listener();
    }
  }

  // --- requests -----------------------------------------------------------------------------------------------------

  /** Takes no more requests, and closes once the last answer is written. */
  end(): void {
    this.#ended = true;
    this.#finish();
  }

  #finish(): void {
    if (this.#ended && this.#inFlight === 0) {
      this.socket.end(() => this.socket.destroy());
    }
  }

  /** Starts the requests that have come, as long as the client keeps up. */
  #pump(): void {
    while (!this.#ended) {
      if (
        this.#inFlight >= MAX_REQUESTS_IN_FLIGHT ||
        this.socket.writableLength > MAX_UNREAD_BYTES
      ) {
        this.socket.pause();
        return;
      }
      let next: JsonValue | undefined;
      try {
        next = this.#stream.next();
      } catch (error) {
        // There is no telling where the next request begins.
        this.#refuse(error as RpcError);
        this.end();
        return;
      }
      if (next === undefined) {
        break;
      }
      this.#begun = false;
      void this.#run(next);
    }
    this.socket.resume();
  }

  async #run(request: JsonValue): Promise<void> {
    const weight = Array.isArray(request.value) ? MAX_REQUESTS_IN_FLIGHT : 1;
    this.#inFlight += weight;
    const text = await answer(this.#dispatcher, request, { outlet: this });
    this.#inFlight -= weight;
    this.#turned = performance.now();
    if (text !== undefined) {
      this.#send(`${text}\n`);
    }
    this.#finish();
    this.#pump();
  }

  #refuse(error: RpcError): void {
    this.#send(`${errorText(null, error)}\n`);
  }

  #send(line: string): void {
    if (this.socket.writable) {
      this.socket.write(line);
    }
  }
}

/** Who may connect. */
export interface SocketAccess {
  /** Of the socket file. Default: 0600. */
  readonly mode?: number | undefined;
  /** Default: who the target runs as. */
  readonly owner?: { readonly uid: number; readonly gid: number } | undefined;
}

export class RpcServer {
  readonly path: string;
  readonly #server: Server;
  readonly #clients = new Map<Socket, Client>();

  private constructor(path: string, dispatcher: Dispatcher, log: Logger) {
    this.path = path;
    this.#server = createServer({ allowHalfOpen: true }, (socket) => {
      if (this.#clients.size >= MAX_RPC_CLIENTS && !this.#makeRoom(log)) {
        log.warn({ clients: MAX_RPC_CLIENTS }, 'rpc client refused');
        socket.on('error', () => {});
        const reason = new RpcError(RpcCode.INTERNAL_ERROR, 'Too many clients');
        socket.end(`${errorText(null, reason)}\n`, () => socket.destroy());
        return;
      }
      this.#clients.set(socket, new Client(socket, dispatcher, log));
      socket.on('close', () => this.#clients.delete(socket));
    });
  }

  /** False if nobody is idle. */
  #makeRoom(log: Logger): boolean {
    const client = longestIdle(this.#clients.values());
    if (client === undefined) {
      return false;
    }
    log.debug({ clients: MAX_RPC_CLIENTS }, 'idle rpc client closed for a new one');
    this.#clients.delete(client.socket);
    client.drop();
    return true;
  }

  /**
   * Listens at `path`, for this user only if `access` does not say otherwise. Rejects with EADDRINUSE if somebody answers there, with
   * what bind and listen say, and with EPERM if the file may not be given to the owner.
   */
  static async listen(
    path: string,
    dispatcher: Dispatcher,
    log: Logger,
    access: SocketAccess = {},
  ): Promise<RpcServer> {
    await claimSocketPath(path);
    const server = new RpcServer(path, dispatcher, log);
    await server.#bind();
    try {
      server.#open(access);
    } catch (error) {
      await server.close();
      throw withErrnoDetail(error, path);
    }
    server.#server.on('error', (error) => log.error({ err: error }, 'rpc socket'));
    return server;
  }

  /** Uses a socket that is open already. Its file is not removed at the end. */
  static adopt(socket: PassedSocket, dispatcher: Dispatcher, log: Logger): RpcServer {
    const server = new RpcServer(socket.address, dispatcher, log);
    server.#server.on('error', (error) => log.error({ err: error }, 'rpc socket'));
    if (socket.listening) {
      server.#server.listen({ fd: socket.fd });
    } else {
      const { fd } = socket;
      const client = new Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
      server.#server.emit('connection', client);
    }
    return server;
  }

  #bind(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', (error) => reject(withErrnoDetail(error, this.path)));
      // The socket file must never be open to others, not even before a chmod; bind happens before listen() returns.
      const umask = process.umask(0o177);
      try {
        this.#server.listen(this.path, () => {
          this.#server.removeAllListeners('error');
          resolve();
        });
      } finally {
        process.umask(umask);
      }
    });
  }

  /** The owner first: nobody gets more than the mode says on the way. */
  #open({ mode, owner }: SocketAccess): void {
    if (owner !== undefined) {
      lchownSync(this.path, owner.uid, owner.gid);
    }
    if (mode !== undefined) {
      chmodSync(this.path, mode);
    }
  }

  /** Stops listening, removes the socket file, lets requests under way finish and clients read their answers. */
  async close(): Promise<void> {
    // One that does not listen (see `adopt`) is closed once its only client is.
    const closed = this.#server.listening
      ? new Promise<void>((resolve) => this.#server.close(() => resolve()))
      : Promise.all([...this.#clients.keys()].map(closing));
    for (const client of this.#clients.values()) {
      client.end();
    }
    const timer = setTimeout(() => this.#destroyAll(), CLOSE_TIMEOUT_MS);
    await closed;
    clearTimeout(timer);
  }

  #destroyAll(): void {
    for (const socket of this.#clients.keys()) {
      socket.destroy();
    }
  }
}

function closing(socket: Socket): Promise<void> {
  return new Promise((resolve) => socket.once('close', () => resolve()));
}
