/**
 * The HTTP server: JSON-RPC, health, events, the dashboard. Off unless asked for. Every answer but files, metrics and events is JSON; every
 * request is bounded in size and time. Owned by main.
 */
import type { IncomingHttpHeaders, ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { type FastifyInstance, type FastifyReply, type FastifyRequest, fastify } from 'fastify';
import { MAX_RPC_REQUEST_BYTES } from '../limits.ts';
import { answer } from '../rpc/answer.ts';
import type { Dispatcher } from '../rpc/dispatcher.ts';
import { JsonStream, type JsonValue } from '../rpc/json-stream.ts';
import { errorText, RpcCode, RpcError } from '../rpc/protocol.ts';
import { withErrnoDetail } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import { Access, type AccessOptions, checkReach, type Refusal, WRONG_TOKEN } from './access.ts';
import { authority, type HttpAddress } from './address.ts';
import { type Asset, loadAssets } from './assets.ts';
import { limitConnections } from './connections.ts';
import { renderMetrics } from './metrics.ts';
import { type EventSources, EventStream } from './sse.ts';

const MAX_HEADER_BYTES = 16 * 1024;
/** A login is small. Bytes. */
const MAX_LOGIN_BYTES = 8 * 1024;
/** How long a client may take to send the head of a request, and all of it. Milliseconds. */
const HEADERS_TIMEOUT_MS = 5000;
const REQUEST_TIMEOUT_MS = 10_000;
const KEEP_ALIVE_TIMEOUT_MS = 60_000;
/** Of a connection on which nothing moves though an answer is due. Longer than any method waits by default. */
const STALL_TIMEOUT_MS = 10 * 60_000;
/** Of a path that was refused. */
const MAX_LOGGED_CHARACTERS = 128;
/** How long requests under way may take when the server closes. */
const CLOSE_TIMEOUT_MS = 500;

/** Pages run what we serve, talk to us, and are shown in no frame. */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "manifest-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

/** Of every answer. */
const COMMON_HEADERS = {
  'Content-Security-Policy': CONTENT_SECURITY_POLICY,
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cache-Control': 'no-store',
} as const;

export interface HttpServerOptions extends AccessOptions, EventSources {
  readonly address: HttpAddress;
  readonly dispatcher: Dispatcher;
  /** Whether all reactors live. */
  readonly healthy: () => boolean;
  readonly log: Logger;
}

export class HttpServer {
  readonly #app: FastifyInstance;
  readonly #access: Access;
  readonly #stream: EventStream;
  readonly #options: HttpServerOptions;
  /** The answer to the last call that came on a connection is on its way. */
  readonly #answered = new WeakMap<Socket, Promise<void>>();
  /** Methods by path. Not the router's to be asked: it takes a path for a pattern. */
  readonly #methods = new Map<string, string[]>();

  /** Rejects with InvalidError if others than this machine could connect without a token, and with what listen says. */
  static async listen(options: HttpServerOptions): Promise<HttpServer> {
    const { address, token, log } = options;
    checkReach(address, token);
    const server = new HttpServer(options);
    try {
      await server.#app.listen(address);
    } catch (error) {
      await server.close();
      throw withErrnoDetail(error, `--http ${authority(address)}`);
    }
    log.info({ http: server.url }, 'HTTP server listens');
    return server;
  }

  private constructor(options: HttpServerOptions) {
    this.#options = options;
    this.#access = new Access(options);
    this.#stream = new EventStream(options, options.log);
    this.#app = fastify({
      bodyLimit: MAX_RPC_REQUEST_BYTES,
      connectionTimeout: STALL_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
      http: {
        maxHeaderSize: MAX_HEADER_BYTES,
        headersTimeout: HEADERS_TIMEOUT_MS,
        connectionsCheckingInterval: 1000,
        // Access looks at it.
        requireHostHeader: false,
      },
      clientErrorHandler: refuseConnection,
      frameworkErrors: (error, _request, reply) => sendError(reply, error.statusCode, error),
    });
    limitConnections(this.#app.server, options.log);
    this.#addRules();
    this.#addRoutes();
    this.#addAssets(loadAssets());
  }

  /** Where it listens. */
  get url(): string {
    const { address, port } = this.#app.server.address() as AddressInfo;
    return `http://${authority({ host: address, port })}/`;
  }

  #addRules(): void {
    const app = this.#app;
    app.removeAllContentTypeParsers();
    app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (_request, body, done) =>
      done(null, body),
    );
    app.addHook('onRequest', async (request, reply) => {
      reply.headers(COMMON_HEADERS);
      return this.#refuse(request, reply, this.#access.checkHost(request.headers));
    });
    app.setErrorHandler((error: Error & { statusCode?: number }, _request, reply) => {
      const status = error.statusCode ?? 500;
      if (status >= 500) {
        this.#options.log.error({ err: error }, 'HTTP request failed');
      }
      return sendError(reply, status, status >= 500 ? new Error('Internal error') : error);
    });
    app.addHook('onRoute', ({ url, method }) => {
      this.#methods.set(url, [...(this.#methods.get(url) ?? []), method].flat());
    });
    app.setNotFoundHandler((request, reply) => {
      const path = pathOf(request.url);
      const allowed = this.#methods.get(path)?.sort();
      return allowed === undefined
        ? sendError(reply, 404, new Error('Not found'))
        : sendError(
            reply.header('Allow', allowed.join(', ')),
            405,
            new Error(`${path} takes ${allowed.join(', ')}`),
          );
    });
  }

  #addRoutes(): void {
    const app = this.#app;
    app.get('/healthz', (_request, reply) => {
      const healthy = this.#options.healthy();
      return reply.code(healthy ? 200 : 503).send({ status: healthy ? 'ok' : 'reactor lost' });
    });
    app.get('/session', ({ headers }) => ({
      tokenNeeded: this.#access.needsToken,
      open: this.#access.checkToken(headers) === undefined,
    }));
    const site = this.#guard((headers) => this.#access.checkSite(headers));
    const token = this.#guard((headers) => this.#access.checkToken(headers));
    app.post('/login', { onRequest: [site], bodyLimit: MAX_LOGIN_BYTES }, (request, reply) =>
      this.#login(request, reply),
    );
    app.post('/logout', { onRequest: [site] }, ({ headers }, reply) =>
      reply.header('Set-Cookie', this.#access.sessionCookie(headers, false)).code(204).send(),
    );
    app.post('/rpc', { onRequest: [site, token] }, (request, reply) => this.#rpc(request, reply));
    app.get('/metrics', { onRequest: [token] }, async ({ headers }, reply) => {
      const { snapshot, dispatcher } = this.#options;
      const state = { snapshot: await snapshot(), calls: dispatcher.counts };
      const { type, text } = await renderMetrics(state, headers.accept);
      return reply.type(type).send(text);
    });
    app.get('/events', { onRequest: [site, token], exposeHeadRoute: false }, (request, reply) =>
      this.#events(request, reply),
    );
  }

  #guard(check: (headers: IncomingHttpHeaders) => Refusal | undefined) {
    return async (request: FastifyRequest, reply: FastifyReply) =>
      this.#refuse(request, reply, check(request.headers));
  }

  #refuse(
    { ip: from, method, url }: FastifyRequest,
    reply: FastifyReply,
    refusal: Refusal | undefined,
  ): FastifyReply | undefined {
    if (refusal === undefined) {
      return undefined;
    }
    const { status, message } = refusal;
    const path = pathOf(url).slice(0, MAX_LOGGED_CHARACTERS);
    this.#options.log[refusal.suspicious ? 'warn' : 'debug']({ from, method, path }, message);
    if (status === 401) {
      reply.header('WWW-Authenticate', 'Bearer');
    }
    return sendError(reply, status, new Error(message));
  }

  #login(request: FastifyRequest, reply: FastifyReply): FastifyReply {
    let token: unknown;
    try {
      token = (readJson(request.body).value as { token?: unknown } | null)?.token;
    } catch (error) {
      return sendError(reply, 400, error as Error);
    }
    if (typeof token !== 'string' || !this.#access.isToken(token)) {
      return this.#refuse(request, reply, WRONG_TOKEN) ?? reply;
    }
    const cookie = this.#access.sessionCookie(request.headers);
    return reply.header('Set-Cookie', cookie).code(204).send();
  }

  async #rpc(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    let value: JsonValue;
    try {
      value = readJson(request.body);
    } catch (error) {
      const text = errorText(null, error as RpcError);
      return reply.code(400).type('application/json; charset=utf-8').send(text);
    }
    await this.#turn(request.raw.socket, reply.raw);
    const text = await answer(this.#options.dispatcher, value);
    return text === undefined
      ? reply.code(204).send()
      : reply.type('application/json; charset=utf-8').send(text);
  }

  /** Resolves when the calls that came earlier on a connection are answered, and the answers read: else they could fill the memory. */
  async #turn(socket: Socket, response: ServerResponse): Promise<void> {
    const before = this.#answered.get(socket);
    const answered = new Promise<void>((resolve) => response.once('close', () => resolve()));
    this.#answered.set(socket, answered);
    await before;
  }

  #events(request: FastifyRequest, reply: FastifyReply): FastifyReply {
    const asked =
      request.headers['last-event-id'] ?? (request.query as { since?: unknown }).since ?? undefined;
    if (asked !== undefined && !/^\d{1,15}$/.test(String(asked))) {
      return sendError(reply, 400, new Error('Last-Event-ID and since are numbers of events'));
    }
    if (this.#stream.full) {
      return sendError(reply, 503, new Error('Too many clients watch events'));
    }
    reply.hijack();
    const response: ServerResponse = reply.raw;
    response.writeHead(200, {
      ...COMMON_HEADERS,
      'Content-Type': 'text/event-stream',
      // Of nginx: pass on at once.
      'X-Accel-Buffering': 'no',
    });
    this.#stream.add(response, asked === undefined ? undefined : Number(asked));
    return reply;
  }

  #addAssets(assets: ReadonlyMap<string, Asset>): void {
    for (const [path, { type, body, etag }] of assets) {
      this.#app.get(path, (request, reply) => {
        // Kept by the browser, and asked for each time: an update is seen at once.
        reply.headers({ 'Cache-Control': 'no-cache', ETag: etag });
        return matches(request.headers['if-none-match'], etag)
          ? reply.code(304).send()
          : reply.type(type).send(body);
      });
    }
  }

  /** Ends event streams, and lets requests under way finish. */
  async close(): Promise<void> {
    this.#stream.close();
    const timer = setTimeout(() => this.#app.server.closeAllConnections(), CLOSE_TIMEOUT_MS);
    await this.#app.close();
    clearTimeout(timer);
  }
}

/** The one JSON value of a body. Throws an RpcError. */
function readJson(body: unknown): JsonValue {
  const stream = new JsonStream();
  if (body instanceof Buffer) {
    stream.push(body);
  }
  const first = stream.next();
  if (first === undefined) {
    throw new RpcError(RpcCode.PARSE_ERROR, 'Parse error: the request is not complete');
  }
  if (stream.next() !== undefined || stream.pending) {
    throw new RpcError(
      RpcCode.PARSE_ERROR,
      'Parse error: more than one value (a batch is an array)',
    );
  }
  return first;
}

function matches(ifNoneMatch: string | undefined, etag: string): boolean {
  const asked = ifNoneMatch?.split(/\s*,\s*/) ?? [];
  return asked.some((tag) => tag === '*' || tag.replace(/^W\//, '') === etag);
}

function sendError(reply: FastifyReply, status: number | undefined, error: Error): FastifyReply {
  return reply
    .code(status ?? 500)
    .headers(COMMON_HEADERS)
    .send({ error: error.message });
}

/** Of a request's target: what follows `?` may be anything. */
const pathOf = (url: string): string => url.replace(/\?.*$/s, '');

const CONNECTION_ERRORS: Readonly<Record<string, readonly [string, string]>> = {
  HPE_HEADER_OVERFLOW: ['431 Request Header Fields Too Large', 'The header is too large'],
  ERR_HTTP_REQUEST_TIMEOUT: ['408 Request Timeout', 'The request took too long to come'],
};

/** Answers what is not HTTP, or takes too long to become it. */
function refuseConnection(error: Error & { code?: string }, socket: Socket): void {
  const [status, message] = CONNECTION_ERRORS[error.code ?? ''] ?? [
    '400 Bad Request',
    'This is not a valid HTTP request',
  ];
  if (!socket.writable || error.code === 'ECONNRESET') {
    socket.destroy();
    return;
  }
  const body = JSON.stringify({ error: message });
  socket.end(
    `HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    () => socket.destroy(),
  );
}
