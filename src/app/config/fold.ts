/** Method calls → plan, with what a target would find wrong in them: the model of one, without effects. */
import { apply, type Made } from '../../target/model/apply.ts';
import { Model } from '../../target/model/model.ts';
import type { ConfigCall, Params, Plan } from '../../target/model/plan.ts';
import { describeReason } from '../../util/errors.ts';
import type { Place, Problem } from './problem.ts';

/** A call, and where it is written. */
export interface PlacedCall extends ConfigCall {
  readonly place: Place;
  /** What is wrong with it was told: it makes nothing, and what needs what it was to make is not told of. */
  readonly isBroken?: boolean;
}

export interface Folded {
  readonly plan: Plan;
  /** Where bdevs, subsystems and listeners are written: by `placeKey`. */
  readonly places: ReadonlyMap<string, Place>;
}

export type Part = Made['part'];

/** `name`: of a bdev, NQN, or traddr. */
export function placeKey(part: Part, name: string): string {
  return `${part} ${name}`;
}

/** Adds what is wrong to `problems`. */
export function foldCalls(calls: readonly PlacedCall[], problems: Problem[]): Folded {
  const model = new Model();
  const places = new Map<string, Place>();
  /** What could not be made. */
  const failed = new Set<string>();
  const isThere = (name: string) =>
    model.names.find(name) !== undefined || model.subsystems.has(name);
  for (const { place, isBroken = false, ...call } of calls) {
    if (isBroken) {
      failed.add(namesIn(call.params ?? {})[0]);
      continue;
    }
    try {
      const made = apply(model, call);
      if (made !== undefined) {
        places.set(placeKey(made.part, made.name), place);
      }
    } catch (error) {
      const names = namesIn(call.params ?? {});
      // What is missing because it could not be made was told already.
      if (!names.some((name) => failed.has(name) && !isThere(name))) {
        problems.push({ place, message: describeReason(error) });
      }
      failed.add(names[0]);
    }
  }
  return { plan: model.plan, places };
}

/** What a call speaks of; first what it makes, or makes otherwise. */
function namesIn({ nqn, name, base_name, base_bdev_name, namespace }: Params): string[] {
  const { bdev_name } = (namespace ?? {}) as Params;
  return [nqn, name, base_name && `EE_${base_name}`, base_name, base_bdev_name, bdev_name]
    .filter((each) => each !== undefined)
    .map(String);
}
