/** The calls that make a bdev: which of their parameters make it what it is. */
import { resolve } from 'node:path';
import { kindMadeBy } from '../../bdev/kind-rules.ts';
import { uuidFromName } from '../../util/uuid.ts';
import type { BdevPlan, Params } from './plan.ts';

export function makesBdev(method: string): boolean {
  return kindMadeBy(method) !== undefined;
}

/** The name that the parameters of a call give it, on a bdev of the name `base`. */
export function nameOf(create: string, { name }: Params, base = ''): string | undefined {
  const chosen = kindMadeBy(create)?.nameOf?.(base) ?? name;
  return chosen === undefined ? undefined : String(chosen);
}

/** With the base's name, if there was its UUID. */
export function withBase(params: Params, base: string | undefined): Params {
  if (base === undefined) {
    return params;
  }
  return 'base_name' in params
    ? { ...params, base_name: base }
    : { ...params, base_bdev_name: base };
}

/** What makes a bdev of that name, with all defaults. */
export function planBdev(create: string, name: string, given: Params): BdevPlan {
  const kind = kindMadeBy(create);
  const params: Record<string, unknown> = kind?.nameOf === undefined ? { name } : {};
  for (const [key, otherwise] of Object.entries(kind?.kept ?? {})) {
    const value = given[key] ?? otherwise;
    if (value !== undefined) {
      params[key] = value;
    }
  }
  if (typeof params.filename === 'string') {
    // Another process may have another working folder.
    params.filename = resolve(params.filename);
  }
  if (typeof params.uuid === 'string') {
    params.uuid = params.uuid.toLowerCase();
  }
  return { name, create, params, limits: {} };
}

/** The parameters without those that are as they would be by themselves: SPDK does not know all of ours. */
export function withoutDefaults({ create, params }: BdevPlan): Params {
  const defaults = kindMadeBy(create)?.kept ?? {};
  return Object.fromEntries(
    Object.entries(params).filter(([key, value]) => value !== defaults[key] || value === undefined),
  );
}

/**
 * The UUID of a bdev on a file, or on what a URI names: that of the file's path, or of the URI; or, if another bdev has that, of it and the name.
 * Undefined for others.
 */
export function uuidOf(
  { filename, uri }: Params,
  name: string,
  isFree: (uuid: string) => boolean,
): string | undefined {
  const where = typeof filename === 'string' ? resolve(filename) : uri;
  if (typeof where !== 'string') {
    return undefined;
  }
  const uuid = uuidFromName(where);
  return isFree(uuid) ? uuid : uuidFromName(`${where}\0${name}`);
}
