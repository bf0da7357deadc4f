/**
 * What the rules of configurations know of the kinds of bdevs: plain data, without what makes or opens one. The registry (`kinds.ts`) fills it
 * in.
 */

export interface BdevKindRules {
  /** In the names of its methods, `bdev_NAME_create` and `bdev_NAME_delete`, and `Bdev.module`. */
  readonly name: string;
  /** What these methods are called instead of `create` and `delete`. */
  readonly verbs?: readonly [make: string, remove: string];
  /**
   * The parameters that make it what it is, with what each is if it is left out (undefined: nothing in particular). Others are accepted and
   * have no effect. A `filename` is a file that no other bdev may use in another way.
   */
  readonly kept: Readonly<Record<string, unknown>>;
  /** The parameter with the name of the bdev below. */
  readonly base?: 'base_bdev_name' | 'base_name';
  /** The bdev below → the name; without it the parameter `name`, or one that is made up. */
  readonly nameOf?: (base: string) => string;
}

const byMethod = new Map<string, BdevKindRules>();

/** For the registry. */
export function addKindRules(rules: BdevKindRules): void {
  byMethod.set(makingMethod(rules), rules);
}

/** The method that makes bdevs of a kind. */
export function makingMethod({ name, verbs }: Pick<BdevKindRules, 'name' | 'verbs'>): string {
  return `bdev_${name}_${verbs?.[0] ?? 'create'}`;
}

/** The method that deletes them. */
export function deletingMethod({ name, verbs }: Pick<BdevKindRules, 'name' | 'verbs'>): string {
  return `bdev_${name}_${verbs?.[1] ?? 'delete'}`;
}

/** The method that deletes what this one makes. Throws if it makes no bdev. */
export function deletionOf(making: string): string {
  const rules = byMethod.get(making);
  if (rules === undefined) {
    throw new Error(`${making} makes no bdev`);
  }
  return deletingMethod(rules);
}

/** Of the kind of which bdevs are made by this method, if it makes any. */
export function kindMadeBy(method: string): BdevKindRules | undefined {
  return byMethod.get(method);
}
