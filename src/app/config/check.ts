/** Whether what is to be made can be made: of a plan before a target starts or changes, and of files without one. */
import { checkReach, readTokenFile } from '../../http/access.ts';
import { native } from '../../native/index.ts';
import { EMPTY_PLAN, type Plan, planCalls } from '../../target/model/plan.ts';
import { describeError } from '../../util/errors.ts';
import { chooseCpus } from '../cpus.ts';
import { askBlockSizes, completePlan } from './complete.ts';
import { foldCalls, type Part, placeKey } from './fold.ts';
import { checkHost, type Sizes } from './host.ts';
import { type LoadedConfig, readConfig, readSources } from './load.ts';
import { type Place, type Problem, refuse } from './problem.ts';
import type { Settings } from './settings.ts';
import type { Source } from './source.ts';
import type { MethodTable } from './spdk.ts';

/** What is to be made. */
export interface Intent {
  readonly plan: Plan;
  readonly sizes: Sizes;
}

export interface IntentCheck extends Intent {
  readonly placeOf: (part: Part, name: string) => Place;
  /** What runs already. */
  readonly current?: Plan;
}

/** Where things are written, by the first of `places` that knows. */
export function placeFinder(
  places: readonly (ReadonlyMap<string, Place> | undefined)[],
): IntentCheck['placeOf'] {
  return (part, name) => {
    const key = placeKey(part, name);
    const known = places.map((map) => map?.get(key)).find((place) => place !== undefined);
    return known ?? { file: 'made through JSON-RPC', path: [name] };
  };
}

/** Adds what is wrong to `problems`: a plan that contradicts itself (files and JSON-RPC may want the same thing), or cannot be made here. */
export async function checkIntent(check: IntentCheck, problems: Problem[]): Promise<void> {
  const { plan, placeOf } = check;
  foldCalls(
    planCalls(plan).map((call) => {
      const { nqn, name, base_name } = (call.params ?? {}) as Record<string, string | undefined>;
      const bdev = name ?? base_name ?? '';
      const place = nqn === undefined ? placeOf('bdev', bdev) : placeOf('subsystem', nqn);
      return { ...call, place };
    }),
    problems,
  );
  await checkHost(check, problems);
}

/**
 * Reads files and checks them as `doorbell serve --config` does. Rejects with ConfigError with all that is wrong. Without `host` disks and
 * folders are not looked at.
 */
export async function checkFiles(
  files: readonly string[],
  methods: MethodTable,
  host: boolean,
): Promise<LoadedConfig> {
  const read = await readSources(files);
  const { problems: told, ...loaded } = readConfig(read, methods);
  const problems = [...told];
  if (host) {
    checkSettings(loaded.settings, read.sources, problems);
    const blockSizes = await askBlockSizes(loaded.plan, EMPTY_PLAN);
    const plan = completePlan(loaded.plan, EMPTY_PLAN, blockSizes);
    const placeOf = placeFinder([loaded.places]);
    await checkIntent({ plan, sizes: loaded.sizes, placeOf }, problems);
  }
  refuse(problems);
  return loaded;
}

/** What a start would find wrong with the settings of the process. Adds it to `problems`. */
function checkSettings(
  { cpus, http }: Settings,
  sources: readonly Source[],
  problems: Problem[],
): void {
  const attempt = (key: string, check: () => unknown): void => {
    try {
      check();
    } catch (error) {
      const source = sources.find(({ value }) => Object.hasOwn(value as object, key));
      problems.push({ place: source!.place([key]), message: describeError(error) });
    }
  };
  if (cpus !== undefined) {
    attempt('cores', () => chooseCpus(cpus, native.getAffinity()));
  }
  if (http !== undefined) {
    const { address, tokenFile } = http;
    attempt('http', () => {
      checkReach(address, tokenFile === undefined ? undefined : readTokenFile(tokenFile));
    });
  }
}
