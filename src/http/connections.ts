/**
 * Bounds the connections of the HTTP server. Clients without a token may connect, so idle ones must not keep others out, health probes
 * least of all: when there is no more room, the connection that has been idle for longest makes it. Owned by main.
 */
import type { Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { CLIENT_STALL_MS, MAX_HTTP_CONNECTIONS } from '../limits.ts';
import { longestIdle, type Occupant } from '../util/idle.ts';
import type { Logger } from '../util/log.ts';

class Connection implements Occupant {
  readonly socket: Socket;
  /** Requests whose head has come, and whose answer the client has not got. */
  readonly #answers = new Set<ServerResponse>();
  #turned = performance.now();

  constructor(socket: Socket) {
    this.socket = socket;
  }

  /**
   * A request that is not there as a whole is none: Node ends those that take long. An answer that is written to its end, and that the client
   * does not read, keeps a connection for a while only; one that goes on (events) keeps it.
   */
  get idleSince(): number | undefined {
    for (const answer of this.#answers) {
      if (!answer.writableEnded || performance.now() - this.#turned < CLIENT_STALL_MS) {
        return undefined;
      }
    }
    return this.#turned;
  }

  begin(answer: ServerResponse): void {
    this.#turned = performance.now();
    this.#answers.add(answer);
    answer.once('close', () => {
      this.#turned = performance.now();
      this.#answers.delete(answer);
    });
  }
}

export function limitConnections(server: Server, log: Logger): void {
  const connections = new Map<Socket, Connection>();
  server.on('connection', (socket: Socket) => {
    if (connections.size >= MAX_HTTP_CONNECTIONS) {
      const idle = longestIdle(connections.values());
      log.debug({ connections: MAX_HTTP_CONNECTIONS, idle: idle !== undefined }, 'HTTP is full');
      if (idle === undefined) {
        socket.destroy();
        return;
      }
      connections.delete(idle.socket);
      idle.socket.destroy();
    }
    connections.set(socket, new Connection(socket));
    socket.once('close', () => connections.delete(socket));
  });
  server.on('request', ({ socket }, response) => connections.get(socket)?.begin(response));
}
