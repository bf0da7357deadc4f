/** Identify: CNS → data structure. NVMe Base 2.0 §5.17. Owned by main. */
import { Cns, Csi, Identify } from '../../spec/admin.ts';
import { IDENTIFY_SIZE } from '../../spec/identify.ts';
import { NSID_ALL, Status } from '../../spec/nvme.ts';
import {
  controllerList,
  identifyController,
  identifyNamespace,
  identifyNamespaceIndependent,
  ioCommandSets,
  namespaceDescriptors,
  namespaceList,
} from '../identify.ts';
import {
  type AdminCommand,
  type AdminContext,
  adminCommand,
  done,
  type Outcome,
  refuse,
} from './command.ts';

interface Request {
  readonly nsid: number;
  readonly cntid: number;
}

/** What Identify gives, or a status. */
type Answer = Uint8Array | number;

interface IdentifyData {
  readonly cns: number;
  /** It is of a command set, which CSI names. */
  readonly perCommandSet?: true;
  readonly data: (context: AdminContext, request: Request) => Answer;
}

/** CNTID that means the controller that the command was sent to. */
const THIS_CONTROLLER = 0xffff;

/** Of an NSID that can be: one without a namespace is inactive, and gives zeros. */
const ofNamespace =
  (data: (context: AdminContext, nsid: number) => Uint8Array): IdentifyData['data'] =>
  (context, { nsid }) =>
    nsid >= 1 && nsid <= context.config.maxNamespaces
      ? data(context, nsid)
      : Status.INVALID_NAMESPACE;

const namespace = ofNamespace(({ host }, nsid) =>
  identifyNamespace(host.namespaces.get(nsid), host.shared),
);

/** NSIDs above the command's. */
const list: IdentifyData['data'] = ({ host }, { nsid }) =>
  nsid >= NSID_ALL - 1 ? Status.INVALID_NAMESPACE : namespaceList(host.namespaces.keys(), nsid);

export const IDENTIFY_DATA: readonly IdentifyData[] = [
  { cns: Cns.NAMESPACE, data: namespace },
  { cns: Cns.CONTROLLER, data: (context) => identifyController(context) },
  { cns: Cns.ACTIVE_NAMESPACES, data: list },
  {
    cns: Cns.NAMESPACE_DESCRIPTORS,
    data: ({ host }, { nsid }) => {
      const found = host.namespaces.get(nsid);
      return found === undefined ? Status.INVALID_NAMESPACE : namespaceDescriptors(found);
    },
  },
  // No extended LBA formats, no protection information: zeros.
  {
    cns: Cns.CSI_NAMESPACE,
    perCommandSet: true,
    data: ofNamespace(() => new Uint8Array(IDENTIFY_SIZE)),
  },
  // No limits beside MDTS: zeros.
  { cns: Cns.CSI_CONTROLLER, perCommandSet: true, data: () => new Uint8Array(IDENTIFY_SIZE) },
  { cns: Cns.CSI_ACTIVE_NAMESPACES, perCommandSet: true, data: list },
  {
    cns: Cns.INDEPENDENT_NAMESPACE,
    data: ofNamespace(({ host }, nsid) =>
      identifyNamespaceIndependent(host.namespaces.get(nsid), host.shared),
    ),
  },
  // Every namespace of the subsystem is attached to every controller.
  { cns: Cns.ALLOCATED_NAMESPACES, data: list },
  { cns: Cns.ALLOCATED_NAMESPACE, data: namespace },
  {
    cns: Cns.NAMESPACE_CONTROLLERS,
    data: (context, { nsid, cntid }) => {
      const { host, config } = context;
      if (nsid === 0 || nsid > config.maxNamespaces) {
        return Status.INVALID_NAMESPACE;
      }
      return controllerList(host.namespaces.has(nsid) ? host.controllers : [], cntid);
    },
  },
  { cns: Cns.CONTROLLERS, data: ({ host }, { cntid }) => controllerList(host.controllers, cntid) },
  {
    cns: Cns.IO_COMMAND_SETS,
    data: ({ host }, { cntid }) =>
      cntid === THIS_CONTROLLER || host.controllers.includes(cntid)
        ? ioCommandSets()
        : Status.INVALID_FIELD,
  },
];

export const IDENTIFY_COMMANDS: readonly AdminCommand[] = [
  adminCommand(Identify, ({ cns, cntid, csi, uuid }, context, command): Outcome => {
    const identified = IDENTIFY_DATA.find((each) => each.cns === cns);
    if (identified === undefined) {
      return refuse(Identify, 'cns');
    }
    if (identified.perCommandSet && csi !== Csi.NVM) {
      return refuse(Identify, 'csi');
    }
    if (uuid !== 0) {
      return refuse(Identify, 'uuid');
    }
    const data = identified.data(context, { nsid: command.nsid, cntid });
    return done(typeof data === 'number' ? data : context.data.send(command, data));
  }),
];
