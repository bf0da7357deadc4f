/** Get Features and Set Features. NVMe Base 2.0 §5.15, §5.27. Owned by main. */
import { GetFeatures, SetFeatures } from '../../spec/admin.ts';
import { Capabilities, Fid, Select } from '../../spec/features.ts';
import { NSID_ALL, Status } from '../../spec/nvme.ts';
import { dataBytes, type Feature } from '../features/feature.ts';
import type { ControllerConfig, ControllerHost } from '../host.ts';
import {
  type AdminCommand,
  type AdminContext,
  adminCommand,
  done,
  type Outcome,
  refuse,
  SUCCESS,
} from './command.ts';

const exists = (nsid: number, { maxNamespaces }: ControllerConfig): boolean =>
  nsid >= 1 && nsid <= maxNamespaces;

/** What is wrong with the namespace that has the feature; Success if nothing is. */
function checkNamespace(
  nsid: number,
  { ofActive }: Feature,
  config: ControllerConfig,
  host: ControllerHost,
): number {
  if (!exists(nsid, config)) {
    return Status.INVALID_NAMESPACE;
  }
  return ofActive && !host.namespaces.has(nsid) ? Status.INVALID_FIELD : Status.SUCCESS;
}

/** What is wrong with the NSID of a Set Features; Success if nothing is. §5.27. */
function checkNsid(
  nsid: number,
  feature: Feature,
  config: ControllerConfig,
  host: ControllerHost,
): number {
  if (feature.perNamespace) {
    return nsid === NSID_ALL ? Status.SUCCESS : checkNamespace(nsid, feature, config, host);
  }
  if (nsid === 0 || nsid === NSID_ALL) {
    return Status.SUCCESS;
  }
  return exists(nsid, config) ? Status.FEATURE_NOT_NAMESPACE_SPECIFIC : Status.INVALID_NAMESPACE;
}

/** What follows a feature that was set. */
function apply(fid: number, context: AdminContext): Promise<void> | undefined {
  switch (fid) {
    case Fid.VOLATILE_WRITE_CACHE:
      return context.host.setWriteThrough(!context.features.writeCache);
    case Fid.INTERRUPT_COALESCING:
    case Fid.INTERRUPT_VECTOR_CONFIG:
      return context.host.setCoalescing(context.features.coalescing);
    case Fid.HOST_BEHAVIOR_SUPPORT:
      return context.host.setCopyFormats(context.features.hostBehavior.copyFormats);
    case Fid.KEEP_ALIVE_TIMER:
      context.keepAlive();
      break;
    case Fid.TEMPERATURE_THRESHOLD:
    case Fid.ASYNC_EVENT_CONFIG:
      context.checkHealth();
      break;
  }
  return undefined;
}

export const FEATURE_COMMANDS: readonly AdminCommand[] = [
  adminCommand(GetFeatures, ({ fid, sel, value, uuid }, context, command): Outcome => {
    const { features, config, host, data: transfer } = context;
    const feature = features.find(fid);
    if (feature === undefined) {
      return refuse(GetFeatures, 'fid');
    }
    if (sel > Select.CAPABILITIES) {
      return refuse(GetFeatures, 'sel');
    }
    if (uuid !== 0) {
      return refuse(GetFeatures, 'uuid');
    }
    const namespace = feature.perNamespace === true;
    if (sel === Select.CAPABILITIES) {
      const changeable = feature.changeable?.(command.nsid, host) ?? true;
      return done(Status.SUCCESS, Capabilities.encode({ namespace, changeable }));
    }
    const checked = namespace
      ? checkNamespace(command.nsid, feature, config, host)
      : Status.SUCCESS;
    if (checked !== Status.SUCCESS) {
      return done(checked);
    }
    // Nothing is saved: the saved values are the defaults.
    const which = sel === Select.CURRENT ? 'current' : 'default';
    const { status, dw0, data } = feature.get(which, value, command.nsid, host);
    return done(data === undefined ? status : transfer.send(command, data), dw0);
  }),

  adminCommand(
    SetFeatures,
    ({ fid, sv, value, uuid }, context, command): Outcome | Promise<Outcome> => {
      const { features, config, host, data: transfer } = context;
      const feature = features.find(fid);
      if (feature === undefined) {
        return refuse(SetFeatures, 'fid');
      }
      if (sv) {
        return refuse(SetFeatures, 'sv', Status.FEATURE_NOT_SAVEABLE);
      }
      if (uuid !== 0) {
        return refuse(SetFeatures, 'uuid');
      }
      const checked = checkNsid(command.nsid, feature, config, host);
      if (checked !== Status.SUCCESS) {
        return done(checked);
      }
      const bytes = dataBytes(feature, value);
      const data = bytes === 0 ? new Uint8Array(0) : transfer.receive(command, bytes);
      if (typeof data === 'number') {
        return done(data);
      }
      const result = feature.set(value, command.nsid, data, host);
      if (result instanceof Promise) {
        return result.then(({ status, dw0 }) => done(status, dw0));
      }
      const { status, dw0 } = result;
      const applied = status === Status.SUCCESS ? apply(fid, context) : undefined;
      return applied === undefined ? done(status, dw0) : applied.then(() => SUCCESS);
    },
    { effects: { ccc: true } },
  ),
];
