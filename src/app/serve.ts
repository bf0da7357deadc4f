/** A whole target, from its options to its end: reactors, bdevs, the vfio-user socket, the JSON-RPC socket. */
import { resolve } from 'node:path';
import { native } from '../native/index.ts';
import { ReactorPool } from '../reactor/pool.ts';
import { Dispatcher } from '../rpc/dispatcher.ts';
import { Lifecycle } from '../rpc/lifecycle.ts';
import { allMethods } from '../rpc/methods/index.ts';
import { RpcServer, type SocketAccess } from '../rpc/server.ts';
import { Endpoint } from '../target/endpoint.ts';
import { reportFolder } from '../target/report.ts';
import { Target } from '../target/target.ts';
import { describeError, FailedError, InvalidError } from '../util/errors.ts';
import { componentLogger, type LogControl, type Logger, peerLogger } from '../util/log.ts';
import { VERSION } from '../util/version.ts';
import type { Listening } from './banner.ts';
import type { Configuration } from './config/configuration.ts';
import { type ConfigOptions, openConfiguration } from './config/open.ts';
import { chooseCpus } from './cpus.ts';
import { type DiskOptions, type Served, serveDisks } from './disks.ts';
import type { HttpOptions } from './http.ts';
import { type PassedOptions, PassedSockets } from './passed-sockets.ts';

export interface ServeOptions extends PassedOptions, DiskOptions, ConfigOptions {
  /** Absent: nobody but this process can call methods. */
  readonly rpcSocket?: string | undefined;
  /** Who may use it. */
  readonly rpcAccess?: SocketAccess | undefined;
  /** Processors of the reactors. */
  readonly cpus?: readonly number[] | undefined;
  /** Reactors at most, if there is no wish for processors. */
  readonly reactors?: number | undefined;
  /** How long an idle reactor polls before it sleeps, and how long it sleeps at most. µs. */
  readonly spinUs: number;
  readonly maxSleepUs: number;
  /** How long a clean stop may take. Seconds. */
  readonly stopTimeout: number;
  /** Absent: no HTTP server. */
  readonly http?: HttpOptions | undefined;
  /** Takes options first, and serves disks when framework_start_init is called. */
  readonly waitForRpc?: boolean | undefined;
  /** What says which sockets were passed to the process. Default: its own. */
  readonly environment?: NodeJS.ProcessEnv | undefined;
}

/** A running target. */
export class Service {
  readonly target: Target;
  readonly reactors: ReactorPool;
  /** Calls methods. */
  readonly dispatcher: Dispatcher;
  /** Absent if there are neither configuration files nor a state folder. */
  readonly configuration: Configuration | undefined;
  /** Once it serves its disks. */
  readonly initialized: Promise<void>;
  readonly #listening: () => Listening;
  readonly #parts: readonly Part[];
  #stopping: readonly string[] = [];

  private constructor(
    { target, reactors, dispatcher, configuration }: Rooms,
    { initialized }: Lifecycle,
    listening: () => Listening,
    parts: readonly Part[],
  ) {
    this.target = target;
    this.reactors = reactors;
    this.dispatcher = dispatcher;
    this.configuration = configuration;
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
    asked: ServeOptions,
    log: Logger,
    control: LogControl,
    onExhausted: () => void,
  ): Promise<Service> {
    // Before anything starts.
    const { configuration, options } = await openConfiguration(asked, log);
    const parts: Part[] = [];
    try {
      const passed = new PassedSockets(options, asked.environment ?? process.env, process.pid);
      if (options.stateDir !== undefined && passed.disk?.address.endsWith('/cntrl') === false) {
        throw new InvalidError(
          `the socket ${passed.disk.address} was passed, but --state-dir can only bring back sockets at FOLDER/cntrl`,
        );
      }
      const reactors = await ReactorPool.start({
        cores: chooseCpus(options.cpus, native.getAffinity(), options.reactors),
        spinUs: options.spinUs,
        maxSleepUs: options.maxSleepUs,
        log: componentLogger(log, 'reactor'),
      });
      parts.push({ name: 'the reactors', stop: () => reactors.stop() });
      const target = new Target({
        log,
        reactors,
        reportFolder: reportFolder(asked.stateDir && resolve(asked.stateDir), process.env),
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
      configuration?.adopt(target);
      if (configuration !== undefined) {
        parts.push({ name: 'the state folder', stop: () => configuration.close() });
      }
      parts.push({ name: 'the VMs and their disks', stop: () => closeTarget(target) });
      if (configuration !== undefined) {
        // Its disk may hang, and must not keep those of the VMs from becoming durable.
        const stop = () => configuration.stop();
        parts.push({ name: 'the saved state', stop, withLast: true });
      }
      const rpcLog = peerLogger(log, 'rpc', {});
      let disks: Served | undefined;
      const initialize = async (): Promise<void> => {
        if (configuration?.restores === true) {
          disks = { disks: [] };
        } else {
          disks = await serveDisks(target, options, passed.disk, log);
        }
        if (configuration !== undefined) {
          await configuration.start(target, methods);
          dispatcher.keeper = configuration;
        }
      };
      const lifecycle = new Lifecycle(options.waitForRpc === true ? initialize : undefined);
      const methods = allMethods(target, VERSION, control, lifecycle, configuration);
      const dispatcher = new Dispatcher(methods, rpcLog, lifecycle);
      const server = await serveRpc(options, passed, dispatcher, rpcLog);
      if (server !== undefined) {
        parts.push({ name: 'JSON-RPC clients', stop: () => server.close() });
      }
      if (options.waitForRpc !== true) {
        const initialized = initialize();
        // Who asks at once finds what was asked for; a disk that hangs keeps nobody from asking.
        dispatcher.opening = Promise.race([
          initialized.catch(() => {}),
          new Promise<void>((resolve) => setTimeout(resolve, OPENING_MS).unref()),
        ]).finally(() => {
          dispatcher.opening = undefined;
        });
        await initialized;
      }
      const httpUrl = await startHttp();
      const listening = () => ({
        rpcSocket: server?.path,
        httpUrl,
        ...disks,
        sockets: sockets(target),
      });
      return new Service(
        { target, reactors, dispatcher, configuration },
        lifecycle,
        listening,
        parts,
      );

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
      await stopAll(parts, () => {}).catch((failure: unknown) => {
        log.error({ err: failure }, 'not stopped cleanly');
      });
      // Also if it is none of the parts yet.
      await configuration?.close();
      throw explain(error);
    }
  }

  /** Disconnects everybody, makes the data durable, removes the sockets. */
  stop(): Promise<void> {
    return stopAll(this.#parts, (names) => {
      this.#stopping = names;
    });
  }

  /** What `stop` waits for. */
  get stopping(): readonly string[] {
    return this.#stopping;
  }
}

/** Rejects with FailedError if something is not durable, or may still be served. */
async function closeTarget(target: Target): Promise<void> {
  const failures = await target.close();
  if (failures.length > 0) {
    throw new FailedError(failures.join('; '));
  }
}

/** How long JSON-RPC clients wait at the start for the disks to be served. Milliseconds. */
const OPENING_MS = 2000;

/** What the service consists of. */
interface Rooms {
  readonly target: Target;
  readonly reactors: ReactorPool;
  readonly dispatcher: Dispatcher;
  readonly configuration: Configuration | undefined;
}

/** Something that was started. */
interface Part {
  readonly name: string;
  readonly stop: () => Promise<void>;
  /** Stopped together with the one that was started before it. */
  readonly withLast?: boolean;
}

/** At the socket that was passed for it, or the one that the options name. */
async function serveRpc(
  { rpcSocket, rpcAccess }: ServeOptions,
  passed: PassedSockets,
  dispatcher: Dispatcher,
  log: Logger,
): Promise<RpcServer | undefined> {
  if (passed.rpc !== undefined) {
    return RpcServer.adopt(passed.rpc, dispatcher, log);
  }
  return rpcSocket === undefined
    ? undefined
    : RpcServer.listen(resolve(rpcSocket), dispatcher, log, rpcAccess);
}

/** In the reverse order of the start. Rejects with the first failure, after all were stopped. `waiting` is told for what that waits. */
async function stopAll(
  parts: readonly Part[],
  waiting: (names: readonly string[]) => void,
): Promise<void> {
  const failures: unknown[] = [];
  let stage: Part[] = [];
  for (const part of [...parts].reverse()) {
    stage.push(part);
    if (part.withLast !== true) {
      await stopStage(stage, waiting, failures);
      stage = [];
    }
  }
  if (failures.length > 0) {
    throw failures[0];
  }
}

async function stopStage(
  stage: readonly Part[],
  waiting: (names: readonly string[]) => void,
  failures: unknown[],
): Promise<void> {
  const names = new Set(stage.map(({ name }) => name));
  waiting([...names]);
  await Promise.all(
    stage.map(async ({ name, stop }) => {
      await stop().catch((error: unknown) => failures.push(error));
      names.delete(name);
      waiting([...names]);
    }),
  );
}

/** Where VMs find their controllers. */
function sockets({ subsystems }: Target): NonNullable<Listening['sockets']> {
  return subsystems.flatMap(({ nqn, namespaces, listeners }) =>
    [...listeners.keys()].map((path) => ({ nqn, path, namespaces: namespaces.size })),
  );
}

/** What an operator can do about an error at the start. */
function explain(error: unknown): unknown {
  const cause = error instanceof InvalidError && error.cause !== undefined ? error.cause : error;
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
  if (code === 'EADDRINUSE') {
    const message = describeError(cause);
    const own = message.includes('--http') ? 'port' : '--rpc-socket';
    const other = cause === error ? own : '--socket-dir';
    return new FailedError(`${message} (is another target running? choose another ${other})`);
  }
  return cause;
}
