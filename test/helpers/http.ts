/** A target with an HTTP server in this process, and clients for it: plain ones, raw ones, one that reads events. */
import { connect, type Socket } from 'node:net';
import { HttpServer, type HttpServerOptions } from '../../src/http/server.ts';
import { Dispatcher } from '../../src/rpc/dispatcher.ts';
import { allMethods } from '../../src/rpc/methods/index.ts';
import { snapshot } from '../../src/target/snapshot.ts';
import { log, logControl } from './rpc.ts';
import { type Test, TestTarget } from './target.ts';

export interface TestHttp {
  readonly target: TestTarget;
  readonly server: HttpServer;
  /** Ends with a slash. */
  readonly url: string;
  readonly port: number;
  /** Snapshots that were taken. */
  readonly snapshots: () => number;
}

/** Torn down with the test. */
export async function startHttp(
  t: Test,
  options: Partial<HttpServerOptions> = {},
): Promise<TestHttp> {
  const target = await TestTarget.start(t);
  const { reactors, events } = target.target;
  let snapshots = 0;
  const server = await HttpServer.listen({
    address: { host: '127.0.0.1', port: 0 },
    dispatcher: new Dispatcher(allMethods(target.target, '1.2.3-test', logControl), log),
    events,
    snapshot: () => {
      snapshots += 1;
      return snapshot(target.target);
    },
    healthy: () => reactors.cores.every((_, index) => reactors.state(index).alive),
    log,
    ...options,
  });
  t.teardown(() => server.close());
  const { url } = server;
  return { target, server, url, port: Number(new URL(url).port), snapshots: () => snapshots };
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** The text as JSON. Throws if it is not. */
  readonly json: unknown;
}

export async function ask(url: string, init: RequestInit = {}): Promise<Answer> {
  const response = await fetch(url, { redirect: 'error', ...init });
  const text = await response.text();
  return {
    status: response.status,
    headers: response.headers,
    text,
    get json() {
      return JSON.parse(text);
    },
  };
}

/** POSTs JSON. */
export function post(
  url: string,
  value: unknown,
  headers: Readonly<Record<string, string>> = {},
): Promise<Answer> {
  return ask(url, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...headers },
    body: typeof value === 'string' ? value : JSON.stringify(value),
  });
}

/** A connection that sends bytes as they are. */
export class RawHttp {
  readonly socket: Socket;
  /** All that came. */
  received = '';
  /** Resolves when the server has closed the connection. */
  readonly closed: Promise<void>;
  #changed: () => void = () => {};

  constructor(t: Test, port: number) {
    this.socket = connect({ host: '127.0.0.1', port, allowHalfOpen: true });
    this.socket.setEncoding('latin1').on('data', (text: string) => {
      this.received += text;
      this.#changed();
    });
    this.socket.on('error', () => {});
    this.closed = new Promise((resolve) => {
      for (const event of ['end', 'close']) {
        this.socket.on(event, () => {
          resolve();
          this.#changed();
        });
      }
    });
    t.teardown(() => this.socket.destroy());
  }

  send(data: string): void {
    this.socket.write(data);
  }

  /** Resolves when the pattern has come. */
  async until(pattern: RegExp): Promise<void> {
    while (!pattern.test(this.received)) {
      if (this.socket.readableEnded || this.socket.destroyed) {
        throw new Error(`closed before ${pattern}: ${this.received}`);
      }
      await new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
    }
  }
}

export interface SseEvent {
  readonly id?: string;
  readonly event?: string;
  readonly data: unknown;
}

/** Reads a stream of events, as the HTML standard has it, but for lines that we never send. */
export class SseClient {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #abort: AbortController;
  readonly #decoder = new TextDecoder();
  #text = '';

  private constructor(body: ReadableStream<Uint8Array>, abort: AbortController) {
    this.#reader = body.getReader();
    this.#abort = abort;
  }

  static async connect(
    t: Test,
    url: string,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<SseClient> {
    const abort = new AbortController();
    const response = await fetch(url, { headers, signal: abort.signal });
    if (response.status !== 200 || response.body === null) {
      throw new Error(`${response.status} ${await response.text()}`);
    }
    const client = new SseClient(response.body, abort);
    t.teardown(() => client.close());
    return client;
  }

  /** The next event with this name, or `undefined` once the server has ended the stream. */
  async next(name?: string): Promise<SseEvent | undefined> {
    for (;;) {
      const end = this.#text.indexOf('\n\n');
      if (end < 0) {
        const { done, value } = await this.#reader.read();
        if (done) {
          return undefined;
        }
        this.#text += this.#decoder.decode(value, { stream: true });
        continue;
      }
      const block = this.#text.slice(0, end);
      this.#text = this.#text.slice(end + 2);
      const fields = new Map(
        block.split('\n').map((line) => [line.split(': ')[0], line.slice(line.indexOf(': ') + 2)]),
      );
      const data = fields.get('data');
      if (data !== undefined && (name === undefined || fields.get('event') === name)) {
        const id = fields.get('id');
        return {
          ...(id !== undefined && { id }),
          event: `${fields.get('event')}`,
          data: JSON.parse(data),
        };
      }
    }
  }

  close(): void {
    this.#abort.abort();
  }
}
