/**
 * The configuration of a target through its life: read and checked before anything starts, made at the start, kept as it changes, and
 * compared with its files again when asked. Owned by main.
 */

import type { FailedFile } from '../../bdev/failed-files.ts';
import type { UncorrectableFile as MarkedFile } from '../../bdev/uncorrectable-files.ts';
import type { RpcMethod } from '../../rpc/dispatcher.ts';
import type { KeptNamespace } from '../../target/kept-reservations.ts';
import type { KeptOperation } from '../../target/kept-sanitize.ts';
import { DEFAULT_MAX_SUBSYSTEMS } from '../../target/model/model.ts';
import {
  type ConfigCall,
  describeCall,
  EMPTY_PLAN,
  type Plan,
  planDocument,
} from '../../target/model/plan.ts';
import type { Target } from '../../target/target.ts';
import { describeError, FailedError } from '../../util/errors.ts';
import type { Logger } from '../../util/log.ts';
import { patiently } from '../../util/patience.ts';
import { Serial } from '../../util/serial.ts';
import { emptiedDisks, planChanges } from './changes.ts';
import { checkIntent, type Intent, placeFinder } from './check.ts';
import { askBlockSizes, completePlan } from './complete.ts';
import { changedSettings, grownFiles } from './differences.ts';
import { FailureFile } from './failure-file.ts';
import { type GroupedCalls, groupCalls } from './groups.ts';
import { prepareHost, type Sizes } from './host.ts';
import { type LoadedConfig, loadConfig, type Reading } from './load.ts';
import { mergePlans } from './merge.ts';
import { type Place, type Problem, refuse } from './problem.ts';
import { ReservationFile } from './reservation-file.ts';
import { SanitizeFile } from './sanitize-file.ts';
import type { Settings } from './settings.ts';
import type { MethodTable } from './spdk.ts';
import { type State, StateFile } from './state.ts';
import { UncorrectableFile } from './uncorrectable-file.ts';

/** How long a reload waits for one of its calls. Milliseconds. */
const RELOAD_CALL_MS = 10_000;
/** How long a call waits until what it changed is on stable storage. Milliseconds. */
const KEEP_MS = 5000;

export interface ConfigurationOptions {
  readonly files: readonly string[];
  readonly stateDir?: string | undefined;
  /** Whatever the files say. */
  readonly trapDoorbells?: boolean | undefined;
  readonly mapFileMemory?: boolean | undefined;
  readonly requireSharedMemory?: boolean | undefined;
  readonly socketDir?: string | undefined;
  readonly methods: MethodTable;
  readonly log: Logger;
}

export interface ReloadOptions {
  /** Also what was changed through JSON-RPC becomes as the files say. */
  readonly overwrite: boolean;
}

/** In a few words each. */
export interface ReloadResult {
  /** Calls that were made. */
  readonly changes: readonly string[];
  /** Calls that would make things as the files say, where JSON-RPC made them otherwise. */
  readonly kept: readonly string[];
  /** Settings that changed and take effect at the next start. */
  readonly needsRestart: readonly string[];
}

/** What runs. */
interface Running {
  readonly target: Target;
  readonly methods: ReadonlyMap<string, RpcMethod>;
}

export class Configuration {
  readonly #options: ConfigurationOptions;
  readonly #log: Logger;
  readonly #state: StateFile | undefined;
  readonly #failures: FailureFile | undefined;
  /** Files whose write-back failed in an earlier run. */
  #failed: readonly FailedFile[] = [];
  /** Blocks that guests have marked uncorrectable; and in earlier runs. */
  readonly #uncorrectable: UncorrectableFile | undefined;
  /** Reservations that persist; and those of earlier runs. */
  readonly #reservations: ReservationFile | undefined;
  #reserved: readonly KeptNamespace[] = [];
  /** Sanitize operations; and those of earlier runs. */
  readonly #sanitize: SanitizeFile | undefined;
  #sanitized: readonly KeptOperation[] = [];
  #marked: readonly MarkedFile[] = [];
  #closed = false;
  readonly #reloads = new Serial();
  /** What the files said when they were last taken over. */
  #loaded: LoadedConfig;
  #start: Intent = { plan: EMPTY_PLAN, sizes: new Map() };
  #running: Running | undefined;
  #restores = false;
  /** The target's revision that is kept. */
  #kept = -1;
  /** The last attempt to keep it failed. */
  #complained = false;

  /** Reads and checks everything. Rejects with ConfigError with all that is wrong, FailedError if the state folder is in use. */
  static async open(options: ConfigurationOptions): Promise<Configuration> {
    const { problems, ...loaded } = await load(options);
    const { stateDir, methods } = options;
    const state = stateDir === undefined ? undefined : await StateFile.open(stateDir);
    const configuration = new Configuration(options, loaded, state);
    try {
      configuration.#failed = configuration.#failures?.read() ?? [];
      configuration.#marked = configuration.#uncorrectable?.read() ?? [];
      configuration.#reserved = configuration.#reservations?.read() ?? [];
      configuration.#sanitized = configuration.#sanitize?.read() ?? [];
      const kept = state?.read(methods);
      configuration.#restores = kept !== undefined;
      configuration.#start = await configuration.#plan(kept, problems);
    } catch (error) {
      void configuration.close();
      throw error;
    }
    return configuration;
  }

  private constructor(
    options: ConfigurationOptions,
    loaded: LoadedConfig,
    state: StateFile | undefined,
  ) {
    this.#options = options;
    this.#log = options.log;
    this.#loaded = loaded;
    this.#state = state;
    const { stateDir } = options;
    if (stateDir !== undefined) {
      this.#failures = new FailureFile(stateDir, this.#log);
      this.#uncorrectable = new UncorrectableFile(stateDir, this.#log);
      this.#reservations = new ReservationFile(stateDir, this.#log);
      this.#sanitize = new SanitizeFile(stateDir, this.#log);
    }
    if (state !== undefined) {
      state.content = () => this.#content();
    }
  }

  /** There is a state to start from. */
  get restores(): boolean {
    return this.#restores;
  }

  /** What is going to be made at the start. */
  get plan(): Plan {
    return this.#start.plan;
  }

  get settings(): Settings {
    return this.#loaded.settings;
  }

  /** What is to be made at the start. */
  async #plan(state: State | undefined, told: readonly Problem[]): Promise<Intent> {
    const { plan: wanted, places } = this.#loaded;
    const merged = state === undefined ? wanted : mergePlans(state.base, wanted, state.plan);
    const current = state?.plan ?? EMPTY_PLAN;
    const plan = completePlan(merged, current, await askBlockSizes(merged, current));
    const sizes = sizesOf(this.#loaded, plan);
    await check({ plan, sizes }, [places, state?.places], told);
    if (state !== undefined) {
      for (const { name, create } of plan.bdevs.values()) {
        if (create === 'bdev_malloc_create' && state.plan.bdevs.has(name)) {
          this.#log.warn({ bdev: name }, 'this RAM disk comes back empty');
        }
      }
      for (const name of wanted.bdevs.keys()) {
        if (!plan.bdevs.has(name)) {
          this.#log.warn({ bdev: name }, 'in a file, but was deleted through JSON-RPC');
        }
      }
    }
    return { plan, sizes };
  }

  /** Before the target has any bdevs: what failed in earlier runs is still to fail. */
  adopt({ failedFiles, uncorrectableFiles, keptReservations, keptSanitize }: Target): void {
    this.#reservations?.follow(keptReservations, this.#reserved);
    this.#sanitize?.follow(keptSanitize, this.#sanitized);
    failedFiles.restore(this.#failed);
    this.#failures?.follow(failedFiles);
    uncorrectableFiles.restore(this.#marked);
    this.#uncorrectable?.follow(uncorrectableFiles);
  }

  /** Makes what is to be. Rejects with FailedError that names the call that failed. */
  async start(target: Target, methods: readonly RpcMethod[]): Promise<void> {
    this.#running = { target, methods: new Map(methods.map((entry) => [entry.name, entry])) };
    const { plan, sizes } = this.#start;
    for (const { method } of this.#loaded.ignored) {
      this.#log.info({ method }, 'has no effect here');
    }
    await prepareHost(plan, sizes, this.#log);
    // What there is stays: disks of the command line, and what an earlier attempt made.
    const current = target.model.plan;
    const changes = planChanges(current, mergePlans(EMPTY_PLAN, plan, current, true));
    for (const call of [...changes, ...this.#loaded.calls]) {
      await this.#make(call);
    }
    await this.keep();
  }

  /** Reads the files again, and takes over what changed. Rejects with ConfigError if they cannot be used: then nothing was changed. */
  reload({ overwrite }: ReloadOptions): Promise<ReloadResult> {
    return this.#reloads.run(() => this.#reload(overwrite));
  }

  async #reload(overwrite: boolean): Promise<ReloadResult> {
    const running = this.#running;
    if (running === undefined || this.#options.files.length === 0) {
      throw new FailedError('There is no configuration file to read again (--config)');
    }
    const { problems, ...loaded } = await load(this.#options);
    const current = running.target.model.plan;
    const base = this.#loaded.plan;
    const merge = async (all: boolean) => {
      const merged = mergePlans(base, loaded.plan, current, all);
      return completePlan(merged, current, await askBlockSizes(merged, current));
    };
    const plan = await merge(overwrite);
    const sizes = sizesOf(loaded, plan);
    await check({ plan, sizes }, [loaded.places], problems, current);
    const kept = planChanges(plan, await merge(true)).map(describeCall);

    await prepareHost(plan, sizes, this.#log, current);
    const grown = await grownFiles(running.target, loaded.plan, this.#log);
    const calls = planChanges(current, plan, grown);
    try {
      await this.#makeAll(groupCalls(calls, current, plan));
    } catch (error) {
      // What was made so far is the files': else the next reload would take it, or its absence, for a change through JSON-RPC.
      const taken = mergePlans(current, running.target.model.plan, base);
      this.#loaded = { ...this.#loaded, plan: taken };
      this.#kept = -1;
      await this.keep();
      throw error;
    }
    const needsRestart = changedSettings(this.#loaded, loaded, plan, current);
    this.#loaded = { ...loaded, settings: this.#loaded.settings };
    // Also if nothing changed: the files did.
    this.#kept = -1;
    await this.keep();
    return { changes: calls.map(describeCall), kept, needsRestart };
  }

  /**
   * What a guest or a disk holds up keeps no other VM waiting, nor the next reload: it goes on by itself, and what was to come after it is left
   * out. Rejects with FailedError that names each call that failed or does not end.
   */
  async #makeAll({ first, groups }: GroupedCalls): Promise<void> {
    const makeInOrder = async (calls: readonly ConfigCall[]) => {
      for (const call of calls) {
        const words = `${describeCall(call)}: not done after ${RELOAD_CALL_MS / 1000} s; it goes on, what depends on it was left out`;
        await patiently(this.#make(call), RELOAD_CALL_MS, words);
        this.#log.info({ change: describeCall(call) }, 'reload');
      }
    };
    await makeInOrder(first);
    const outcomes = await Promise.allSettled(groups.map(makeInOrder));
    const failures = outcomes.flatMap((outcome) =>
      outcome.status === 'rejected' ? [outcome.reason as unknown] : [],
    );
    if (failures.length > 0) {
      throw new FailedError(failures.map(describeError).join('; '), { cause: failures[0] });
    }
  }

  async #make({ method, params = {} }: ConfigCall): Promise<void> {
    const { target, methods } = this.#running!;
    if (method === 'nvmf_set_max_subsystems') {
      // A client may call it only once, and only before initialisation.
      target.maxSubsystems = Number(params.max_subsystems) || DEFAULT_MAX_SUBSYSTEMS;
      return;
    }
    try {
      await methods.get(method)?.call(params, {});
    } catch (error) {
      const call = describeCall({ method, params });
      throw new FailedError(`${call}: ${describeError(error)}`, { cause: error });
    }
  }

  /** Of the target: raised by each change. */
  get revision(): number {
    return this.#running?.target.revision ?? -1;
  }

  /** Resolves when all that was changed so far is kept. Rejects with FailedError if it cannot be. */
  async keep(): Promise<void> {
    const state = this.#state;
    const target = this.#running?.target;
    if (state === undefined || target === undefined || target.revision === this.#kept) {
      return;
    }
    try {
      const saved = state.save().then((revision) => {
        this.#kept = Math.max(this.#kept, revision);
      });
      await patiently(saved, KEEP_MS, `${state.path} was not written after ${KEEP_MS / 1000} s`);
      this.#complained = false;
    } catch (error) {
      const reason = describeError(error);
      // Every call tries again.
      if (!this.#complained) {
        this.#log.error({ err: error, file: state.path }, 'a change could not be kept');
      }
      this.#complained = true;
      throw new FailedError(`done, but it will not outlast a restart: ${reason}`);
    }
  }

  #content() {
    const { target } = this.#running!;
    return {
      document: planDocument(target.model.plan),
      base: planDocument(this.#loaded.plan),
      revision: target.revision,
    };
  }

  /** Waits for the last write: what the target's end changes is not kept, but for failed write-backs. */
  async stop(): Promise<void> {
    await this.#state?.stop();
  }

  /** Nothing is kept any more. The target may be gone by now. */
  async close(): Promise<void> {
    if (!this.#closed) {
      this.#closed = true;
      await this.#failures?.settled();
      await this.#uncorrectable?.settled();
      await this.#reservations?.settled();
      await this.#sanitize?.settled();
      await this.#state?.close();
    }
  }
}

/** Sizes of the files that the disks still have. */
function sizesOf({ plan: wanted, sizes }: LoadedConfig, plan: Plan): Sizes {
  const file = ({ bdevs }: Plan, name: string) => bdevs.get(name)?.params.filename;
  return new Map([...sizes].filter(([name]) => file(wanted, name) === file(plan, name)));
}

function load(options: ConfigurationOptions): Promise<Reading> {
  return loadConfig(options.files, options.methods, options);
}

/** Rejects with ConfigError if something is wrong with the files (`told`), or a plan contradicts itself, cannot be made here, or would empty RAM disks. */
async function check(
  { plan, sizes }: Intent,
  places: readonly (ReadonlyMap<string, Place> | undefined)[],
  told: readonly Problem[],
  current: Plan = EMPTY_PLAN,
): Promise<void> {
  const problems: Problem[] = [...told];
  const placeOf = placeFinder(places);
  await checkIntent({ plan, sizes, placeOf, current }, problems);
  for (const { name } of emptiedDisks(current, plan)) {
    const message = `the RAM disk '${name}' would lose what is in it: give the new one another 'name', or remove it first`;
    problems.push({ place: placeOf('bdev', name), message });
  }
  refuse(problems);
}
