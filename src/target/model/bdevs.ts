/** The calls that make a bdev: which of their parameters make it what it is. */
import { resolve } from 'node:path';
import { uuidFromName } from '../../util/uuid.ts';
import type { BdevPlan, Params } from './plan.ts';

/** Those parameters with their defaults; others are accepted and have no effect. */
const FILE = {
  filename: undefined,
  block_size: undefined,
  readonly: false,
  direct: false,
  uuid: undefined,
};
const MEMORY = { num_blocks: undefined, block_size: undefined, uuid: undefined };
const PARAMETERS: Readonly<Record<string, Params>> = {
  bdev_aio_create: { ...FILE, nowait: false },
  bdev_uring_create: FILE,
  bdev_malloc_create: MEMORY,
  bdev_null_create: MEMORY,
  bdev_delay_create: {
    base_bdev_name: undefined,
    avg_read_latency: undefined,
    p99_read_latency: undefined,
    avg_write_latency: undefined,
    p99_write_latency: undefined,
    uuid: undefined,
  },
  bdev_error_create: { base_name: undefined, uuid: undefined },
};

export function makesBdev(method: string): boolean {
  return Object.hasOwn(PARAMETERS, method);
}

/** The name that the parameters give it. An error bdev's is made from its base's, as SPDK has it. */
export function nameOf({ name, base_name }: Params, base: string | undefined): string | undefined {
  const chosen = base_name === undefined ? name : `EE_${base}`;
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
  const params: Record<string, unknown> = create === 'bdev_error_create' ? {} : { name };
  for (const [key, otherwise] of Object.entries(PARAMETERS[create] ?? {})) {
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
  const defaults = PARAMETERS[create] ?? {};
  return Object.fromEntries(
    Object.entries(params).filter(([key, value]) => value !== defaults[key] || value === undefined),
  );
}

/** The UUID of a bdev on a file: that of the file's path; or, if another bdev has that, of the path and its name. */
export function uuidOfFile(
  filename: string,
  name: string,
  isFree: (uuid: string) => boolean,
): string {
  const path = resolve(filename);
  const uuid = uuidFromName(path);
  return isFree(uuid) ? uuid : uuidFromName(`${path}\0${name}`);
}
