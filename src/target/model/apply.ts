/** Method calls of a configuration → changes of a model. */

import { InvalidError } from '../../util/errors.ts';
import { makesBdev } from './bdevs.ts';
import { DEFAULT_MAX_SUBSYSTEMS, type Model } from './model.ts';
import type { ConfigCall, ListenAddress, NamespacePlan, Params } from './plan.ts';
import { planScheduler, type SchedulerParams } from './scheduler.ts';
import { type SubsystemParams, subsystemOptions } from './subsystem.ts';
import { isVfioUser, planTransport, type TransportParams } from './transport.ts';

/** A thing that a call made. `name`: of a bdev, NQN, or traddr. */
export interface Made {
  readonly part: 'bdev' | 'subsystem' | 'listener';
  readonly name: string;
}

/** Calls that say what a target should have, but for those that make bdevs. */
const CALLS: Readonly<Record<string, (model: Model, params: Params) => Made | undefined>> = {
  bdev_set_qos_limit: (model, { name, ...limits }) => {
    model.limit(String(name), limits);
    return undefined;
  },
  nvmf_set_max_subsystems: (model, { max_subsystems }) => {
    model.maxSubsystems = Number(max_subsystems ?? 0) || DEFAULT_MAX_SUBSYSTEMS;
    return undefined;
  },
  framework_set_scheduler: (model, params) => {
    model.scheduler = planScheduler(params as unknown as SchedulerParams, model.scheduler);
    return undefined;
  },
  nvmf_create_transport: (model, params) => {
    model.createTransport(planTransport(params as unknown as TransportParams));
    return undefined;
  },
  nvmf_create_subsystem: (model, params) => {
    const { nqn } = model.createSubsystem(subsystemOptions(params as unknown as SubsystemParams));
    return { part: 'subsystem', name: nqn };
  },
  nvmf_subsystem_add_host: (model, { nqn, host }) => {
    model.subsystem(String(nqn)).addHost(String(host));
    return undefined;
  },
  nvmf_subsystem_allow_any_host: (model, { nqn, allow_any_host }) => {
    model.subsystem(String(nqn)).allowAnyHost = allow_any_host === true;
    return undefined;
  },
  nvmf_subsystem_add_ns: (model, { nqn, namespace }) => {
    model.addNamespace(String(nqn), parseNamespace(namespace as NamespaceParams));
    return undefined;
  },
  nvmf_subsystem_add_listener: (model, { nqn, listen_address }) => {
    const address = parseAddress(listen_address as Params);
    model.addListener(String(nqn), address, model.checkListener(String(nqn), address));
    return { part: 'listener', name: address.traddr };
  },
};

/** Whether a call says what a target should have. */
export function isConfigCall(method: string): boolean {
  return makesBdev(method) || Object.hasOwn(CALLS, method);
}

/**
 * Does to a model what such a call does to a target, but for the effects. Its parameters are as the method's schema has them. Throws as
 * the method does, and has changed nothing then.
 */
export function apply(model: Model, { method, params = {} }: ConfigCall): Made | undefined {
  return Object.hasOwn(CALLS, method)
    ? CALLS[method](model, params)
    : { part: 'bdev', name: model.createBdev(method, params) };
}

/** Parameters of nvmf_subsystem_add_ns, its `namespace`. */
export interface NamespaceParams {
  readonly bdev_name: string;
  /** 0 or undefined: the smallest free one. */
  readonly nsid?: number | undefined;
  readonly uuid?: string | undefined;
  /** 32 hex digits. */
  readonly nguid?: string | undefined;
  /** 16 hex digits. */
  readonly eui64?: string | undefined;
}

/** Without what is left open. */
export function parseNamespace(params: NamespaceParams): NamespacePlan {
  const { bdev_name, nsid = 0, uuid, nguid, eui64 } = params;
  return {
    ...(nsid > 0 && { nsid }),
    bdev_name,
    ...(nguid !== undefined && { nguid: nguid.toUpperCase() }),
    ...(eui64 !== undefined && { eui64: eui64.toUpperCase() }),
    ...(uuid !== undefined && { uuid: uuid.toLowerCase() }),
  };
}

/** The address of nvmf_subsystem_add_listener and nvmf_subsystem_remove_listener. Throws InvalidError for other transports. */
export function parseAddress(params: Params): ListenAddress {
  const { trtype, traddr, adrfam = 'unknown', trsvcid = '' } = params;
  if (!isVfioUser(String(trtype))) {
    throw new InvalidError(`key 'listen_address.trtype' must be VFIOUSER, not '${trtype}'`);
  }
  return { traddr: String(traddr), adrfam: String(adrfam), trsvcid: String(trsvcid) };
}
