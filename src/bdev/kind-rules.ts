/**
 * What the rules of configurations know of the kinds of bdevs: plain data, without what makes or opens one. The registry (`kinds.ts`) fills it
 * in.
 */

export interface BdevKindRules {
  /** In the names of its methods, `bdev_NAME_create` and `bdev_NAME_delete`, and `Bdev.module`. */
  readonly name: string;
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

const byName = new Map<string, BdevKindRules>();

/** For the registry. */
export function addKindRules(rules: BdevKindRules): void {
  byName.set(rules.name, rules);
}

/** Of the kind of which bdevs are made by this method, if it makes any. */
export function kindMadeBy(method: string): BdevKindRules | undefined {
  const [, name = ''] = /^bdev_(\w+)_create$/.exec(method) ?? [];
  return byName.get(name);
}
