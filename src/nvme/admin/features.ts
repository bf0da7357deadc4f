/** Get Features and Set Features. NVMe Base 2.0 §5.15, §5.27. Owned by main. */
import { GetFeatures, SetFeatures } from '../../spec/admin.ts';
import { Capabilities, Fid, Select } from '../../spec/features.ts';
import { NSID_ALL, Status } from '../../spec/nvme.ts';
import type { Feature } from '../features/feature.ts';
import type { ControllerConfig } from '../host.ts';
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

/** What is wrong with the NSID of a Set Features; Success if nothing is. §5.27. */
function checkNsid(nsid: number, feature: Feature, config: ControllerConfig): number {
  if (feature.perNamespace) {
    return nsid === NSID_ALL || exists(nsid, config) ? Status.SUCCESS : Status.INVALID_NAMESPACE;
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
    const { features, config, data: transfer } = context;
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
      return done(Status.SUCCESS, Capabilities.encode({ namespace, changeable: true }));
    }
    if (namespace && !exists(command.nsid, config)) {
      return done(Status.INVALID_NAMESPACE);
    }
    // Nothing is saved: the saved values are the defaults.
    const which = sel === Select.CURRENT ? 'current' : 'default';
    const { status, dw0, data } = feature.get(which, value, command.nsid);
    return done(data === undefined ? status : transfer.send(command, data), dw0);
  }),

  adminCommand(
    SetFeatures,
    ({ fid, sv, value, uuid }, context, command): Outcome | Promise<Outcome> => {
      const { features, config, data: transfer } = context;
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
      const checked = checkNsid(command.nsid, feature, config);
      if (checked !== Status.SUCCESS) {
        return done(checked);
      }
      const bytes = feature.dataBytes ?? 0;
      const data = bytes === 0 ? new Uint8Array(0) : transfer.receive(command, bytes);
      if (typeof data === 'number') {
        return done(data);
      }
      const { status, dw0 } = feature.set(value, command.nsid, data);
      const applied = status === Status.SUCCESS ? apply(fid, context) : undefined;
      return applied === undefined ? done(status, dw0) : applied.then(() => SUCCESS);
    },
    { effects: { ccc: true } },
  ),
];
