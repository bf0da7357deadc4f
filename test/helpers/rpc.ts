/** A target with its JSON-RPC socket, for tests: real, or with listeners and reactors that only remember. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Ajv } from 'ajv';
import { pino } from 'pino';
import { COLUMNS } from '../../src/bdev/counters.ts';
import { Tally } from '../../src/bdev/tally.ts';
import { native } from '../../src/native/index.ts';
import type { SubsystemEvent } from '../../src/nvme/host.ts';
import { ReactorPool } from '../../src/reactor/pool.ts';
import { callRpc } from '../../src/rpc/client.ts';
import { Dispatcher, type RpcMethod } from '../../src/rpc/dispatcher.ts';
import { JsonStream } from '../../src/rpc/json-stream.ts';
import { Lifecycle } from '../../src/rpc/lifecycle.ts';
import { allMethods } from '../../src/rpc/methods/index.ts';
import { RpcError } from '../../src/rpc/protocol.ts';
import { RpcServer } from '../../src/rpc/server.ts';
import { Endpoint } from '../../src/target/endpoint.ts';
import type { Reactors } from '../../src/target/reactors.ts';
import { Target, type TargetOptions } from '../../src/target/target.ts';
import type { AccessChange, EndpointView, Namespace } from '../../src/target/types.ts';
import { LogControl } from '../../src/util/log.ts';

export const log = pino({ level: 'silent' });
/** What the log methods change. */
export const logControl = new LogControl('info');

/** What tap's `t` has that is used here. */
interface Test {
  teardown(fn: () => unknown): void;
}

/** A folder with a short path (a socket's path has 107 bytes), removed at the end of the test. */
export function shortFolder(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'db-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** The part of an endpoint that the target calls, without a socket. It remembers what it was told. */
export class RecordingEndpoint implements EndpointView {
  readonly socketPath: string;
  readonly controller: EndpointView['controller'];
  readonly calls: string[];
  /** Awaited in each call: a test can hold it back, or make it fail. */
  before: (call: string) => Promise<void> = async () => {};

  constructor(socketPath: string, calls: string[], controller?: EndpointView['controller']) {
    this.socketPath = socketPath;
    this.calls = calls;
    this.controller = controller;
  }

  async #call(call: string): Promise<void> {
    await this.before(call);
    this.calls.push(call);
  }

  addNamespace(namespace: Namespace): Promise<void> {
    return this.#call(`add ${namespace.nsid} ${namespace.bdev.name}`);
  }

  changeAccess({ namespace }: AccessChange): Promise<void> {
    return this.#call(`access ${namespace.nsid}`);
  }

  subsystemEvent({ kind }: SubsystemEvent): void {
    this.calls.push(kind);
  }

  resetController(): void {
    this.calls.push('reset');
  }

  limitNamespace(nsid: number): Promise<void> {
    return this.#call(`limit ${nsid}`);
  }

  removeNamespace(nsid: number): Promise<void> {
    return this.#call(`remove ${nsid}`);
  }

  async moveQueue(cqid: number, reactor: number): Promise<number> {
    await this.#call(`move ${cqid} to ${reactor}`);
    return reactor;
  }

  close(): Promise<void> {
    return this.#call('close');
  }
}

/** What a reactor counted: the columns that are given, the others 0. */
export function tally(columns: Readonly<Record<number, number>> = {}): Tally {
  const row = new Float64Array(COLUMNS);
  for (const [column, value] of Object.entries(columns)) {
    row[Number(column)] = value;
  }
  return new Tally().add(row);
}

/** Two reactors that have done `counters[reactor]` on every bdev since its last reset. */
export function countingReactors(
  counters: readonly Tally[] = [tally(), tally()],
): Reactors & { readonly resets: [number, string][] } {
  const resets: [number, string][] = [];
  return {
    count: counters.length,
    cores: counters.map((_, index) => index + 1),
    resets,
    iostat: (_bdev, reactor) => counters[reactor],
    bdevTally: (_bdev, reactor) => counters[reactor],
    resetIostat: (bdev, what) => {
      resets.push([bdev, what]);
    },
    forgetBdev: () => {},
    controllersSeen: 5,
    state: (reactor) => ({
      alive: true,
      busy: reactor,
      idle: 10,
      sleeps: 3,
      interrupts: 4,
      tid: 1000 + reactor,
      queuePairs: 7,
    }),
    report: async () => {},
    onLost: () => {},
  };
}

export interface TestTarget {
  readonly target: Target;
  readonly dispatcher: Dispatcher;
  readonly server: RpcServer;
  readonly path: string;
  /** The endpoints that were made, and what they were told, in order. */
  readonly endpoints: RecordingEndpoint[];
  readonly calls: string[];
  call(method: string, params?: unknown): Promise<unknown>;
  /** The error of a call that must fail. */
  refusal(method: string, params?: unknown): Promise<{ code: number; message: string }>;
}

export async function startRpcTarget(
  t: Test,
  options: Partial<TargetOptions> = {},
  lifecycle = new Lifecycle(),
): Promise<TestTarget> {
  const calls: string[] = [];
  const endpoints: RecordingEndpoint[] = [];
  const target = new Target({
    log,
    reactors: countingReactors(),
    listen: async ({ socketPath }) => {
      const endpoint = new RecordingEndpoint(socketPath, calls);
      endpoints.push(endpoint);
      return endpoint;
    },
    ...options,
  });
  const path = join(shortFolder(t), 'rpc.sock');
  const methods = allMethods(target, '1.2.3-test', logControl, lifecycle);
  const dispatcher = new Dispatcher(methods, log, lifecycle);
  const server = await RpcServer.listen(path, dispatcher, log);
  t.teardown(async () => {
    await server.close();
    await target.close();
  });
  const check = resultCheck(methods);
  const call = async (method: string, params?: unknown) => {
    const result = await callRpc(path, method, params);
    check(method, result);
    return result;
  };
  const refusal = async (method: string, params?: unknown) => {
    try {
      await call(method, params);
    } catch (error) {
      if (error instanceof RpcError) {
        return { code: error.code, message: error.message };
      }
      throw error;
    }
    throw new Error(`${method} was not refused`);
  };
  return { target, dispatcher, server, path, endpoints, calls, call, refusal };
}

/** Throws if a result is not what the method's schema says. */
function resultCheck(methods: readonly RpcMethod[]): (method: string, result: unknown) => void {
  const ajv = new Ajv({ strict: true, strictTuples: false });
  ajv.addKeyword({ keyword: 'expected', schemaType: 'string' });
  return (name, result) => {
    const schema = methods.find((method) => method.name === name)?.result;
    if (schema === undefined || !ajv.validate(schema, result)) {
      throw new Error(`${name}: ${ajv.errorsText()}`);
    }
  };
}

/** A target with reactors and real listeners. */
export async function startRealTarget(t: Test, count = 1): Promise<TestTarget> {
  const cpus = native.getAffinity().reverse();
  const reactors = await ReactorPool.start({
    cores: Array.from({ length: count }, (_, index) => cpus[index % cpus.length]),
    spinUs: 50,
    maxSleepUs: 250,
    log,
  });
  // Torn down last.
  t.teardown(() => reactors.stop());
  return startRpcTarget(t, {
    reactors,
    listen: (options) => Endpoint.listen({ ...options, reactors, log }),
  });
}

/** Serves a bdev as the namespace of a subsystem with as many listeners as there are names. Returns their sockets. */
export async function serveBdev(
  t: Test,
  { call }: TestTarget,
  nqn: string,
  bdev_name: string,
  names: readonly string[],
): Promise<string[]> {
  const folder = shortFolder(t);
  await call('nvmf_create_transport', { trtype: 'VFIOUSER' });
  await call('nvmf_create_subsystem', { nqn, allow_any_host: true });
  await call('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name } });
  const sockets = [];
  for (const name of names) {
    const traddr = join(folder, name);
    mkdirSync(traddr);
    await call('nvmf_subsystem_add_listener', {
      nqn,
      listen_address: { trtype: 'VFIOUSER', traddr },
    });
    sockets.push(join(traddr, 'cntrl'));
  }
  return sockets;
}

/** A connection to a JSON-RPC socket that sends bytes as they are, and reads answers one by one. */
export class RawClient {
  readonly socket: Socket;
  readonly #stream = new JsonStream(Number.MAX_SAFE_INTEGER);
  readonly #answers: unknown[] = [];
  #wake: () => void = () => {};
  #ended = false;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk) => {
      this.#stream.push(chunk);
      for (let next = this.#stream.next(); next !== undefined; next = this.#stream.next()) {
        this.#answers.push(next.value);
      }
      this.#wake();
    });
    socket.on('error', () => {});
    for (const event of ['end', 'close']) {
      socket.on(event, () => {
        this.#ended = true;
        this.#wake();
      });
    }
  }

  static connect(path: string): Promise<RawClient> {
    return new Promise((resolve, reject) => {
      const socket = connect({ path, allowHalfOpen: true });
      const client = new RawClient(socket);
      socket.once('connect', () => resolve(client));
      socket.once('error', reject);
    });
  }

  send(data: string | Uint8Array): void {
    this.socket.write(data);
  }

  /** The next answer, or `undefined` once the server has closed the connection. */
  async next(): Promise<unknown> {
    while (this.#answers.length === 0 && !this.#ended) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#answers.shift();
  }

  close(): void {
    this.socket.destroy();
  }
}
