/** The schedulers by SPDK's names, and what framework_set_scheduler says of them. */
import { FailedError, InvalidError } from '../../util/errors.ts';
import type { Params } from './plan.ts';

export const SCHEDULERS = ['static', 'dynamic'] as const;

export interface SchedulerOptions {
  readonly name: (typeof SCHEDULERS)[number];
  /** Between two looks. Microseconds. */
  readonly period: number;
  /** Percent of a reactor's time: see `Limits`. `loadLimit` is SPDK's, and has no effect. */
  readonly loadLimit: number;
  readonly coreLimit: number;
  readonly coreBusy: number;
}

export const STATIC: SchedulerOptions = {
  name: 'static',
  period: 1_000_000,
  loadLimit: 20,
  coreLimit: 80,
  coreBusy: 95,
};

/** Parameters of framework_set_scheduler. */
export interface SchedulerParams {
  readonly name: string;
  readonly period?: number | undefined;
  readonly load_limit?: number | undefined;
  readonly core_limit?: number | undefined;
  readonly core_busy?: number | undefined;
  readonly mappings?: string | undefined;
}

/** What is not given stays as it is. Throws FailedError for an unknown scheduler (as SPDK does), InvalidError. */
export function planScheduler(params: SchedulerParams, before: SchedulerOptions): SchedulerOptions {
  const { name, period = 0, load_limit, core_limit, core_busy, mappings } = params;
  const known = SCHEDULERS.find((scheduler) => scheduler === name);
  if (known === undefined) {
    throw new FailedError(`There is no scheduler '${name}', only 'static' and 'dynamic'`);
  }
  if (mappings !== undefined) {
    throw new InvalidError(`key 'mappings' is not supported`);
  }
  return {
    name: known,
    period: period === 0 ? before.period : period,
    loadLimit: load_limit ?? before.loadLimit,
    coreLimit: core_limit ?? before.coreLimit,
    coreBusy: core_busy ?? before.coreBusy,
  };
}

/** The parameters that set it; undefined: static, which is there by itself. */
export function schedulerParams(options: SchedulerOptions): Params | undefined {
  const { name, period, loadLimit, coreLimit, coreBusy } = options;
  return name === 'static'
    ? undefined
    : { name, period, load_limit: loadLimit, core_limit: coreLimit, core_busy: coreBusy };
}
