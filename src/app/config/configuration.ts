/**
 * The configuration of a target through its life: read and checked before anything starts, made at the start, kept as it changes, and
 * compared with its files again when asked. Owned by main.
 */

import type { FailedFile } from '../../bdev/failed-files.ts';
import { FileBdev } from '../../bdev/file.ts';
import type { RpcMethod } from '../../rpc/dispatcher.ts';
import { type ConfigCall, saveConfig } from '../../rpc/save-config.ts';
import { DEFAULT_MAX_SUBSYSTEMS, type Target } from '../../target/target.ts';
import { describeError, FailedError } from '../../util/errors.ts';
import type { Logger } from '../../util/log.ts';
import { Serial } from '../../util/serial.ts';
import { emptiedDisks, planChanges } from './changes.ts';
import { checkIntent, type Intent, placeFinder } from './check.ts';
import { completePlan } from './complete.ts';
import { FailureFile } from './failure-file.ts';
import { planOf } from './fold.ts';
import { prepareHost, type Sizes } from './host.ts';
import { type LoadedConfig, loadConfig } from './load.ts';
import { mergePlans } from './merge.ts';
import { describeCall, EMPTY_PLAN, type Plan, planDocument, same } from './plan.ts';
import { type Place, type Problem, refuse } from './problem.ts';
import type { Settings } from './short.ts';
import type { MethodTable } from './spdk.ts';
import { type State, StateFile } from './state.ts';

export interface ConfigurationOptions {
  readonly files: readonly string[];
  readonly stateDir?: string | undefined;
  /** Whatever the files say. */
  readonly trapDoorbells?: boolean | undefined;
  readonly mapFileMemory?: boolean | undefined;
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

  /** Reads and checks everything. Throws ConfigError with all that is wrong, FailedError if the state folder is in use. */
  constructor(options: ConfigurationOptions) {
    this.#options = options;
    this.#log = options.log;
    this.#loaded = this.#load();
    const { stateDir, methods } = options;
    this.#state =
      stateDir === undefined ? undefined : new StateFile(stateDir, () => this.#content());
    this.#failures = stateDir === undefined ? undefined : new FailureFile(stateDir, this.#log);
    try {
      this.#failed = this.#failures?.read() ?? [];
      const state = this.#state?.read(methods);
      this.#restores = state !== undefined;
      this.#start = this.#plan(state);
    } catch (error) {
      void this.close();
      throw error;
    }
  }

  /** There is a state to start from. */
  get restores(): boolean {
    return this.#restores;
  }

  get settings(): Settings {
    return this.#loaded.settings;
  }

  #load(): LoadedConfig {
    const { files, methods } = this.#options;
    return loadConfig(files, methods, this.#options);
  }

  /** What is to be made at the start. */
  #plan(state: State | undefined): Intent {
    const { plan: wanted, places } = this.#loaded;
    const merged = state === undefined ? wanted : mergePlans(state.base, wanted, state.plan);
    const plan = completePlan(merged, state?.plan ?? EMPTY_PLAN);
    const sizes = sizesOf(this.#loaded, plan);
    check({ plan, sizes }, [places, state?.places]);
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
  adopt({ failedFiles }: Target): void {
    failedFiles.restore(this.#failed);
    this.#failures?.follow(failedFiles);
  }

  /** Makes what is to be. Rejects with FailedError that names the call that failed. */
  async start(target: Target, methods: readonly RpcMethod[]): Promise<void> {
    this.#running = { target, methods: new Map(methods.map((entry) => [entry.name, entry])) };
    const { plan, sizes } = this.#start;
    for (const { method } of this.#loaded.ignored) {
      this.#log.info({ method }, 'has no effect here');
    }
    prepareHost(plan, sizes, this.#log);
    // What there is stays: disks of the command line, and what an earlier attempt made.
    const current = planOf(target);
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
    const loaded = this.#load();
    const current = planOf(running.target);
    const base = this.#loaded.plan;
    const merge = (all: boolean) =>
      completePlan(mergePlans(base, loaded.plan, current, all), current);
    const plan = merge(overwrite);
    const sizes = sizesOf(loaded, plan);
    check({ plan, sizes }, [loaded.places], current);
    const kept = planChanges(plan, merge(true)).map(describeCall);

    prepareHost(plan, sizes, this.#log);
    const calls = planChanges(current, plan, grownFiles(running.target, loaded.plan));
    try {
      for (const call of calls) {
        await this.#make(call);
        this.#log.info({ change: describeCall(call) }, 'reload');
      }
    } catch (error) {
      // What was made so far is the files': else the next reload would take it, or its absence, for a change through JSON-RPC.
      const taken = mergePlans(current, planOf(running.target), base);
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
      this.#kept = Math.max(this.#kept, await state.save());
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
      document: saveConfig(target),
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
      await this.#state?.close();
    }
  }
}

/** Sizes of the files that the disks still have. */
function sizesOf({ plan: wanted, sizes }: LoadedConfig, plan: Plan): Sizes {
  const file = ({ bdevs }: Plan, name: string) => bdevs.get(name)?.params.filename;
  return new Map([...sizes].filter(([name]) => file(wanted, name) === file(plan, name)));
}

/** Throws ConfigError if a plan contradicts itself, cannot be made here, or would empty RAM disks. */
function check(
  { plan, sizes }: Intent,
  places: readonly (ReadonlyMap<string, Place> | undefined)[],
  current: Plan = EMPTY_PLAN,
): void {
  const problems: Problem[] = [];
  const placeOf = placeFinder(places);
  checkIntent({ plan, sizes, placeOf, current }, problems);
  for (const { name } of emptiedDisks(current, plan)) {
    const message = `the RAM disk '${name}' would lose what is in it: give the new one another 'name', or remove it first`;
    problems.push({ place: placeOf('bdev', name), message });
  }
  refuse(problems);
}

/** Bdevs of the files whose file has become longer than they are. */
function grownFiles(target: Target, plan: Plan): Set<string> {
  const grown = [...plan.bdevs.keys()].filter((name) => {
    const bdev = target.bdevs.find(name);
    return bdev instanceof FileBdev && bdev.currentBlocks() > bdev.numBlocks;
  });
  return new Set(grown);
}

function changedSettings(
  before: LoadedConfig,
  after: LoadedConfig,
  plan: Plan,
  current: Plan,
): string[] {
  const keys = new Set([...Object.keys(before.settings), ...Object.keys(after.settings)]);
  const changed = [...keys].filter(
    (key) => !same(before.settings[key as keyof Settings], after.settings[key as keyof Settings]),
  );
  if (current.transport !== undefined && !same(plan.transport, current.transport)) {
    changed.push('transport');
  }
  return changed;
}
