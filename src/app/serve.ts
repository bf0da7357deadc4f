/** A whole target, from its options to its end: reactors, bdevs, the vfio-user socket, the JSON-RPC socket. */
import { resolve } from 'node:path';
import { createDiskImage } from '../bdev/image.ts';
import { native, type PassedSocket } from '../native/index.ts';
import { ReactorPool } from '../reactor/pool.ts';
import { Dispatcher } from '../rpc/dispatcher.ts';
import { Lifecycle } from '../rpc/lifecycle.ts';
import { allMethods } from '../rpc/methods/index.ts';
import { largestTransport } from '../rpc/methods/transport.ts';
import { RpcServer, type SocketAccess } from '../rpc/server.ts';
import { Endpoint } from '../target/endpoint.ts';
import { Target } from '../target/target.ts';
import { describeError, FailedError, InvalidError } from '../util/errors.ts';
import { componentLogger, type LogControl, type Logger, peerLogger } from '../util/log.ts';
import { VERSION } from '../util/version.ts';
import type { Listening } from './banner.ts';
import { chooseCpus } from './cpus.ts';
import type { HttpOptions } from './http.ts';
import { type PassedOptions, PassedSockets } from './passed-sockets.ts';
import { prepareSocketFolder } from './socket-folder.ts';
import { StateDir } from './state-dir.ts';
import { StateKeeper } from './state-keeper.ts';

/** The subsystem that serves the disks of the command line. */
const NQN = 'nqn.2026-11.io.doorbell:disk';

export interface ServeOptions extends PassedOptions {
  /** Files and block devices: namespaces 1, 2, … */
  readonly disks: readonly string[];
  /** Served if there are no others; made if it is not there. */
  readonly defaultDisk?: string | undefined;
  /** Bytes of a default disk that is made. */
  readonly diskSize: number;
  readonly socketDir?: string | undefined;
  readonly rpcSocket: string;
  /** Where the configuration is kept over restarts. */
  readonly stateDir?: string | undefined;
  /** Who may use it. */
  readonly rpcAccess?: SocketAccess | undefined;
  /** Processors of the reactors. */
  readonly cpus?: readonly number[] | undefined;
  /** How long an idle reactor polls before it sleeps, and how long it sleeps at most. µs. */
  readonly spinUs: number;
  readonly maxSleepUs: number;
  /** Guests ring instead of being polled when idle. */
  readonly trapDoorbells?: boolean | undefined;
  readonly direct: boolean;
  readonly readonly: boolean;
  /** How long a clean stop may take. Seconds. */
  readonly stopTimeout: number;
  readonly blockSize?: number | undefined;
  /** Absent: no HTTP server. */
  readonly http?: HttpOptions | undefined;
  /** Takes options first, and serves disks when framework_start_init is called. */
  readonly waitForRpc?: boolean | undefined;
}

/** A running target. */
export class Service {
  readonly target: Target;
  readonly reactors: ReactorPool;
  /** Once it serves its disks. */
  readonly initialized: Promise<void>;
  readonly #listening: () => Listening;
  readonly #parts: readonly Part[];
  #stopping: string | undefined;

  private constructor(
    { target, reactors }: { target: Target; reactors: ReactorPool },
    { initialized }: Lifecycle,
    listening: () => Listening,
    parts: readonly Part[],
  ) {
    this.target = target;
    this.reactors = reactors;
    this.initialized = initialized;
    this.#listening = listening;
    this.#parts = parts;
  }

  /** Where it listens now. */
  get listening(): Listening {
    return this.#listening();
  }

  /**
   * Starts everything, or stops what it had started and rejects with what was in the way. `onExhausted`: the only client, on a socket
   * that was passed connected, is gone.
   */
  static async start(
    options: ServeOptions,
    log: Logger,
    control: LogControl,
    onExhausted: () => void,
  ): Promise<Service> {
    const passed = new PassedSockets(options, process.env, process.pid);
    const parts: Part[] = [];
    try {
      const reactors = await ReactorPool.start({
        cores: chooseCpus(options.cpus, native.getAffinity()),
        spinUs: options.spinUs,
        maxSleepUs: options.maxSleepUs,
        log: componentLogger(log, 'reactor'),
      });
      parts.push({ name: 'the reactors', stop: () => reactors.stop() });
      const target = new Target({
        log,
        reactors,
        listen: (listener) => {
          const socket = passed.take(listener.socketPath);
          return Endpoint.listen({
            ...listener,
            reactors,
            log,
            passed: socket,
            onExhausted,
            onClosed: () => socket && passed.release(socket),
          });
        },
      });
      parts.push({ name: 'the VMs and their disks', stop: () => target.close() });
      const rpcLog = peerLogger(log, 'rpc', {});
      const state = options.stateDir === undefined ? undefined : new StateDir(options.stateDir);
      if (state !== undefined) {
        parts.push({ name: 'the state folder', stop: async () => state.close() });
      }
      const keeper = state && new StateKeeper(state, target, log);
      let disks: Served | undefined;
      const initialize = async (): Promise<void> => {
        const restored = await keeper?.restore(dispatcher);
        if (restored !== true) {
          disks = await serveDisks(target, options, passed.disk, log);
        } else if (options.disks.length > 0) {
          log.warn('there is a kept configuration: --disk has no effect');
        }
        if (keeper !== undefined) {
          await keeper.keep();
          dispatcher.keep = () => keeper.keep();
        }
      };
      const lifecycle = new Lifecycle(options.waitForRpc === true ? initialize : undefined);
      const methods = allMethods(target, VERSION, control, lifecycle);
      const dispatcher = new Dispatcher(methods, rpcLog, lifecycle);
      const rpcSocket = resolve(options.rpcSocket);
      const access = options.rpcAccess;
      const server =
        passed.rpc === undefined
          ? await RpcServer.listen(rpcSocket, dispatcher, rpcLog, access)
          : RpcServer.adopt(passed.rpc, dispatcher, rpcLog);
      parts.push({ name: 'JSON-RPC clients', stop: () => server.close() });
      if (options.waitForRpc !== true) {
        await initialize();
      }
      const httpUrl = await startHttp();
      const listening = () => ({ rpcSocket: server.path, httpUrl, ...disks });
      return new Service({ target, reactors }, lifecycle, listening, parts);

      async function startHttp(): Promise<string | undefined> {
        if (options.http === undefined) {
          return undefined;
        }
        // Loaded when needed: most targets have no HTTP.
        const { serveHttp } = await import('./http.ts');
        const http = await serveHttp(options.http, target, dispatcher, peerLogger(log, 'http', {}));
        parts.push({ name: 'HTTP clients', stop: () => http.close() });
        return http.url;
      }
    } catch (error) {
      await stopAll(parts, () => {});
      throw explain(error, options);
    }
  }

  /** Disconnects everybody, makes the data durable, removes the sockets. */
  stop(): Promise<void> {
    return stopAll(this.#parts, (name) => {
      this.#stopping = name;
    });
  }

  /** What `stop` waits for. */
  get stopping(): string | undefined {
    return this.#stopping;
  }
}

/** Something that was started. */
interface Part {
  readonly name: string;
  readonly stop: () => Promise<void>;
}

/** In the reverse order of the start. Rejects with the first failure, after all were stopped. */
async function stopAll(parts: readonly Part[], begin: (name: string) => void): Promise<void> {
  const failures: unknown[] = [];
  for (const { name, stop } of [...parts].reverse()) {
    begin(name);
    await stop().catch((error: unknown) => failures.push(error));
  }
  if (failures.length > 0) {
    throw failures[0];
  }
}

function diskName(nsid: number): string {
  return `disk${nsid}`;
}

type Served = Pick<Listening, 'disks' | 'vfioUserSocket'>;

/** All disks, or none: what fails can be tried again. */
async function serveDisks(
  target: Target,
  options: ServeOptions,
  passed: PassedSocket | undefined,
  log: Logger,
): Promise<Served> {
  const paths = chooseDisks(options, log);
  if (paths.length === 0) {
    return { disks: [] };
  }
  try {
    return await servePaths(target, paths, options, passed);
  } catch (error) {
    if (target.findSubsystem(NQN) !== undefined) {
      await target.deleteSubsystem(NQN);
    }
    for (const name of paths.map((_, index) => diskName(index + 1))) {
      if (target.bdevs.find(name) !== undefined) {
        await target.deleteBdev(name, 'uring');
      }
    }
    throw error;
  }
}

async function servePaths(
  target: Target,
  paths: readonly string[],
  options: ServeOptions,
  passed: PassedSocket | undefined,
): Promise<Served> {
  const disks: { nsid: number; path: string; bytes: number; uuid: string }[] = [];
  for (const [index, path] of paths.entries()) {
    const bdev = await target.createFile(
      { name: diskName(index + 1) },
      {
        module: 'uring',
        filename: path,
        blockSize: options.blockSize,
        readonly: options.readonly,
        direct: options.direct,
      },
    );
    disks.push({ nsid: index + 1, path, bytes: bdev.blockSize * bdev.numBlocks, uuid: bdev.uuid });
  }
  if (target.transport === undefined) {
    await target.createTransport(largestTransport(options.trapDoorbells));
  }
  await target.createSubsystem({
    nqn: NQN,
    // The same for the same disk, and another for another, so that a guest can tell targets apart.
    serialNumber: `DB${disks[0].uuid.replaceAll('-', '').slice(0, 16).toUpperCase()}`,
    maxNamespaces: Math.max(disks.length, 32),
    allowAnyHost: true,
  });
  for (const { nsid } of disks) {
    await target.addNamespace(NQN, diskName(nsid), { nsid });
  }
  // A socket that is at its usual place in a folder needs no special treatment: the listener there finds it.
  const traddr = passed?.address.replace(/\/cntrl$/, '') ?? prepareSocketFolder(options.socketDir);
  const passedAt = passed?.address.endsWith('/cntrl') === false ? passed.address : undefined;
  const address = { traddr, trsvcid: '', adrfam: 'unknown' };
  return { disks, vfioUserSocket: await target.addListener(NQN, address, passedAt) };
}

function chooseDisks(options: ServeOptions, log: Logger): readonly string[] {
  const { disks, defaultDisk, diskSize } = options;
  if (disks.length > 0 || defaultDisk === undefined) {
    return disks.map((path) => resolve(path));
  }
  const path = resolve(defaultDisk);
  if (createDiskImage(path, diskSize)) {
    log.info({ path, bytes: diskSize }, 'sparse disk image created');
  }
  return [path];
}

/** What an operator can do about an error at the start. */
function explain(error: unknown, options: ServeOptions): unknown {
  const cause = error instanceof InvalidError && error.cause !== undefined ? error.cause : error;
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
  if (code === 'EADDRINUSE') {
    const hint =
      cause === error
        ? `is another target running? choose another --rpc-socket than ${options.rpcSocket}`
        : 'is another target running? choose another --socket-dir';
    return new FailedError(`${describeError(cause)} (${hint})`);
  }
  return cause;
}
