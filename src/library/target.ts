/**
 * A target inside another program: started, changed, watched and stopped from there. It takes no signals, no sockets of the process, and
 * never ends the process. Owned by main.
 */
import { DEFAULTS } from '../app/defaults.ts';
import { type ServeOptions, Service } from '../app/serve.ts';
import { shutDown } from '../app/shutdown.ts';
import { parseHttpAddress, parseOrigin } from '../http/address.ts';
import { type RpcCalls, rpcCalls } from '../rpc/calls.ts';
import type { EventListener } from '../target/events.ts';
import { FailedError, InvalidError } from '../util/errors.ts';
import { createLogger, type LogFormat, type LogLevel } from '../util/log.ts';
import type { LogSink } from '../util/log-sink.ts';
import { similar } from '../util/similar.ts';
import { type DiskOptions, type Vm, type VmDisk, type VmOptions, Vms } from './vms.ts';

export interface TargetOptions {
  /** Configuration files; docs/configuration.md. */
  readonly config?: readonly string[];
  /** Keeps the configuration over restarts. */
  readonly stateDir?: string;
  /** Path of a JSON-RPC socket. Default: none, and only this program can call methods. */
  readonly rpcSocket?: string;
  /** Dashboard, metrics and JSON-RPC over HTTP. Default: none. */
  readonly http?: {
    /** PORT (of this machine), ADDRESS:PORT or [IPV6]:PORT. */
    readonly address: string | number;
    /** Holds the token that clients must show. */
    readonly tokenFile?: string;
    /** Where reverse proxies serve it. */
    readonly origins?: readonly string[];
  };
  /** Processors of the reactors, one each. Default: all but one of those that the process may use. */
  readonly cores?: readonly number[];
  /** How many reactors, if `cores` does not say it. */
  readonly reactors?: number;
  /** How long an idle reactor polls before it sleeps. µs; default: 100. */
  readonly spinUs?: number;
  /** How long an idle reactor sleeps at most. µs; default: 5000. */
  readonly maxSleepUs?: number;
  /** Sleep without polling when idle: best for Linux guests. */
  readonly trapDoorbells?: boolean;
  /** How long `stop` waits for commands in flight. Seconds; default: 50. */
  readonly stopTimeout?: number;
  /** Default: warnings, as JSON lines on stderr. */
  readonly log?: {
    readonly level?: LogLevel;
    readonly format?: LogFormat;
    /** Takes each line, with its level by pino's numbers; false: it was lost. */
    readonly sink?: LogSink;
  };
}

const OPTION_NAMES = [
  'config',
  'stateDir',
  'rpcSocket',
  'http',
  'cores',
  'reactors',
  'spinUs',
  'maxSleepUs',
  'trapDoorbells',
  'stopTimeout',
  'log',
] as const satisfies readonly (keyof TargetOptions)[];

/** A target that is not started yet. Throws InvalidError for an option that does not exist. */
export function createTarget(options: TargetOptions = {}): EmbeddedTarget {
  for (const name of Object.keys(options)) {
    if (!OPTION_NAMES.some((known) => known === name)) {
      const meant = similar(name, OPTION_NAMES);
      throw new InvalidError(
        `createTarget has no option '${name}'${meant === undefined ? '' : `, did you mean '${meant}'?`}`,
      );
    }
  }
  return new EmbeddedTarget(options);
}

/** What there is of a target that runs. */
interface Running {
  readonly service: Service;
  readonly vms: Vms;
  readonly rpc: RpcCalls;
}

export class EmbeddedTarget {
  readonly #options: TargetOptions;
  readonly #listeners = new Set<EventListener>();
  readonly #log: ReturnType<typeof createLogger>;
  #starting: Promise<Running> | undefined;
  #running: Running | undefined;
  #stopped: Promise<void> | undefined;

  /** See {@link createTarget}. */
  constructor(options: TargetOptions) {
    this.#options = options;
    const { level = 'warn', format = 'json', sink } = options.log ?? {};
    this.#log = createLogger({ level, format, sink });
  }

  /**
   * Serves what the configuration says. Rejects with what is in the way, and leaves nothing behind: it can be tried again. A target that
   * was stopped cannot.
   */
  async start(): Promise<this> {
    if (this.#stopped !== undefined || this.#running !== undefined) {
      throw new FailedError('the target was started already; make another one');
    }
    this.#starting ??= this.#start().finally(() => {
      this.#starting = undefined;
    });
    this.#running = await this.#starting;
    if (this.#stopped !== undefined) {
      throw new FailedError('the target was stopped as it started');
    }
    return this;
  }

  async #start(): Promise<Running> {
    const { log, control } = this.#log;
    const service = await Service.start(this.#serveOptions(), log, control, () => {});
    const { events } = service.target;
    const tell: EventListener = (event) => {
      for (const listener of [...this.#listeners]) {
        try {
          listener({ ...event });
        } catch (error) {
          log.error({ err: error, event: event.type }, 'a listener to events failed');
        }
      }
    };
    events.since(0).forEach(tell);
    events.subscribe(tell);
    return { service, vms: new Vms(service, log), rpc: rpcCalls(service.dispatcher) };
  }

  /** The options as the service takes them. */
  #serveOptions(): ServeOptions {
    const { http, cores, log: _, ...rest } = this.#options;
    const named = {
      ...rest,
      cpus: cores,
      // Processors say how many reactors there are.
      ...(cores !== undefined && { reactors: cores.length }),
      http: http && {
        address: parseHttpAddress(String(http.address)),
        tokenFile: http.tokenFile,
        origins: (http.origins ?? []).map(parseOrigin),
      },
    };
    const given = Object.entries(named).filter(([, value]) => value !== undefined);
    return {
      ...DEFAULTS,
      disks: [],
      direct: false,
      readonly: false,
      ...Object.fromEntries(given),
      given: new Set(given.map(([name]) => name)),
      // Sockets that were passed to the process are the program's.
      environment: {},
    };
  }

  #need(): Running {
    if (this.#running === undefined || this.#stopped !== undefined) {
      throw new FailedError('the target does not run');
    }
    return this.#running;
  }

  /**
   * Disconnects everybody, lets what guests have in flight finish, makes it durable, and removes the sockets. Rejects with FailedError if
   * a part did not stop cleanly (the log says which), or not within `stopTimeout`: a disk that hangs in the kernel keeps its thread.
   */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    const running = this.#running ?? (await this.#starting?.catch(() => undefined));
    if (running === undefined) {
      return;
    }
    const { stopTimeout = DEFAULTS.stopTimeout } = this.#options;
    const outcome = await shutDown(running.service, this.#log.log, 1000 * stopTimeout);
    if (outcome !== 'stopped') {
      throw new FailedError(
        outcome === 'stuck'
          ? `not stopped within ${stopTimeout} s: waits for ${running.service.stopping}`
          : 'not stopped cleanly: the log says why',
      );
    }
  }

  /** All JSON-RPC methods as functions; docs/rpc.md. They reject with an RpcError. Throws FailedError if the target does not run. */
  get rpc(): RpcCalls {
    return this.#need().rpc;
  }

  /** Where it listens: JSON-RPC, HTTP. */
  get listening(): {
    readonly rpcSocket: string | undefined;
    readonly httpUrl: string | undefined;
  } {
    const { rpcSocket, httpUrl } = this.#need().service.listening;
    return { rpcSocket, httpUrl };
  }

  get vms(): readonly Vm[] {
    return this.#need().vms.list();
  }

  /** Serves disks to a VM at a socket of its own. Rejects with what is wrong: then nothing has changed. */
  async addVm(name: string, vm: VmOptions): Promise<Vm> {
    return this.#need().vms.add(name, vm);
  }

  /** Disconnects it, and deletes its disks. Files stay. `vm`: name or NQN. */
  async removeVm(vm: string): Promise<void> {
    return this.#need().vms.remove(vm);
  }

  /** A disk more; a guest that runs finds it. `vm`: name or NQN. */
  async addDisk(vm: string, disk: DiskOptions): Promise<VmDisk> {
    return this.#need().vms.addDisk(vm, disk);
  }

  /** A disk less. `bdev`: as `addVm` and `addDisk` name it. The file stays. */
  async removeDisk(bdev: string): Promise<void> {
    return this.#need().vms.removeDisk(bdev);
  }

  /**
   * `listener` is called for each event, those of the start included; docs/monitoring.md#events lists them. It is called while things
   * change, and must be quick. Returns what ends that.
   */
  onEvent(listener: EventListener): () => void {
    // A function of its own: the same listener may subscribe twice.
    const entry: EventListener = (event) => listener(event);
    this.#listeners.add(entry);
    return () => {
      this.#listeners.delete(entry);
    };
  }
}
