/** Subsystems, their namespaces and hosts, with SPDK's names. Listeners are in `listeners.ts`. */
import { Type } from 'typebox';
import { MAX_NAMESPACES } from '../../limits.ts';
import { MAX_CNTLID, MIN_CNTLID, subsystemOptions } from '../../target/model/subsystem.ts';
import { DISCOVERY_NQN } from '../../target/nqn.ts';
import type { Subsystem, TargetNamespace } from '../../target/subsystem.ts';
import type { Target } from '../../target/target.ts';
import { ErrnoError, InvalidError } from '../../util/errors.ts';
import {
  Ascii,
  Bool,
  Count,
  DONE,
  Hex,
  IGNORED,
  TARGET_NAME,
  Text,
  U8_MAX,
  U16_MAX,
  U32_MAX,
  Uint,
  Unsupported,
  Uuid,
} from '../../util/schema.ts';
import { method } from '../dispatcher.ts';
import { AddressInfo, describeAddress } from './listeners.ts';

const { Optional } = Type;
const NQN = { nqn: Text('NQN of the subsystem'), ...TARGET_NAME };

const CreateSubsystem = Type.Object({
  ...NQN,
  serial_number: Optional(Ascii('default: twenty zeros', 20)),
  model_number: Optional(Ascii('default: Doorbell Controller', 40)),
  admin_label: Optional(Ascii('shown by nvmf_get_subsystems', 256)),
  max_namespaces: Optional(Uint('default (and 0): 32', MAX_NAMESPACES)),
  allow_any_host: Optional(Bool('default: false')),
  min_cntlid: Optional(Uint(`default: ${MIN_CNTLID}`, U16_MAX)),
  max_cntlid: Optional(Uint(`default: ${MAX_CNTLID}`, U16_MAX)),
  dmrsl: Optional(Uint('shown; no namespace has Dataset Management', U32_MAX)),
  wzsl: Optional(Uint('shown; no namespace has Write Zeroes', U8_MAX)),
  max_discard_size_kib: Optional(Uint(IGNORED)),
  max_write_zeroes_size_kib: Optional(Uint(IGNORED)),
  ana_reporting: Optional(Unsupported(false)),
  passthrough: Optional(Unsupported(false)),
  enable_nssr: Optional(
    Bool('a guest may reset all controllers of the subsystem at once; default: true'),
  ),
});

const AddNamespace = Type.Object({
  ...NQN,
  namespace: Type.Object(
    {
      bdev_name: Text('name or UUID of a bdev that nothing else uses'),
      nsid: Optional(Uint('default (and 0): the smallest free one', U32_MAX)),
      uuid: Optional(Uuid("default: the bdev's")),
      nguid: Optional(Hex('default: the UUID', 32)),
      eui64: Optional(Hex('default: none', 16)),
      no_auto_visible: Optional(Unsupported(false)),
      anagrpid: Optional(Uint(`there are no ANA groups; ${IGNORED}`, U32_MAX)),
      ptpl_file: Optional(
        Text(`reservations are kept in the state folder, if there is one; ${IGNORED}`),
      ),
      hide_metadata: Optional(Bool(`there is no metadata to hide; ${IGNORED}`)),
    },
    { additionalProperties: false },
  ),
});

const Host = { ...NQN, host: Text('NQN of a host') };

const SubsystemInfo = Type.Object({
  nqn: Type.String(),
  subtype: Type.Enum(['NVMe', 'Discovery']),
  listen_addresses: Type.Array(AddressInfo),
  allow_any_host: Type.Boolean(),
  hosts: Type.Array(Type.Object({ nqn: Type.String() })),
  serial_number: Optional(Type.String()),
  model_number: Optional(Type.String()),
  admin_label: Optional(Type.String()),
  max_namespaces: Optional(Type.Integer()),
  passthrough: Optional(Type.Boolean()),
  min_cntlid: Optional(Type.Integer()),
  max_cntlid: Optional(Type.Integer()),
  dmrsl: Optional(Type.Integer()),
  wzsl: Optional(Type.Integer()),
  namespaces: Optional(
    Type.Array(
      Type.Object({
        nsid: Type.Integer(),
        bdev_name: Type.String(),
        name: Type.String(),
        nguid: Type.String(),
        eui64: Optional(Type.String()),
        uuid: Type.String(),
      }),
    ),
  ),
});

const DISCOVERY = {
  nqn: DISCOVERY_NQN,
  subtype: 'Discovery' as const,
  listen_addresses: [],
  allow_any_host: true,
  hosts: [],
};

function describeNamespace(namespace: TargetNamespace) {
  const { nsid, bdev, uuid, nguid, eui64 } = namespace;
  return {
    nsid,
    bdev_name: bdev.name,
    name: bdev.name,
    nguid,
    ...(eui64 !== undefined && { eui64 }),
    uuid,
  };
}

function describeSubsystem(subsystem: Subsystem) {
  const { model } = subsystem;
  return {
    nqn: subsystem.nqn,
    subtype: 'NVMe' as const,
    listen_addresses: [...subsystem.listeners.values()].map(describeAddress),
    allow_any_host: model.allowAnyHost,
    hosts: [...model.hosts].map((nqn) => ({ nqn })),
    serial_number: model.serialNumber,
    model_number: model.modelNumber,
    ...(model.adminLabel !== undefined && { admin_label: model.adminLabel }),
    max_namespaces: model.maxNamespaces,
    passthrough: false,
    min_cntlid: model.minCntlid,
    max_cntlid: model.maxCntlid,
    dmrsl: model.dmrsl,
    wzsl: model.wzsl,
    namespaces: [...subsystem.namespaces.values()]
      .sort((a, b) => a.nsid - b.nsid)
      .map(describeNamespace),
  };
}

export function nvmfMethods(target: Target) {
  return [
    method({
      name: 'nvmf_create_subsystem',
      summary: 'Makes an NVMe subsystem.',
      params: CreateSubsystem,
      result: DONE,
      examples: [
        { params: { nqn: 'nqn.2019-07.io.spdk:cnode0', allow_any_host: true }, result: true },
      ],
      call: async (params) => {
        await target.createSubsystem(subsystemOptions(params));
        return true;
      },
    }),
    method({
      name: 'nvmf_delete_subsystem',
      summary: 'Disconnects its clients and deletes it. Its bdevs stay.',
      params: Type.Object(NQN),
      result: DONE,
      call: async ({ nqn }) => {
        await target.deleteSubsystem(nqn);
        return true;
      },
    }),
    method({
      name: 'nvmf_get_subsystems',
      summary: 'All subsystems (the discovery subsystem first), or one.',
      params: Type.Object({ ...NQN, nqn: Optional(Text('only this one; -19 if there is none')) }),
      result: Type.Array(SubsystemInfo),
      call: ({ nqn }) => {
        if (nqn === undefined) {
          return [DISCOVERY, ...target.subsystems.map(describeSubsystem)];
        }
        if (nqn === DISCOVERY_NQN) {
          return [DISCOVERY];
        }
        const subsystem = target.findSubsystem(nqn);
        if (subsystem === undefined) {
          throw new ErrnoError('ENODEV', `there is no subsystem ${nqn}`);
        }
        return [describeSubsystem(subsystem)];
      },
    }),
    method({
      name: 'nvmf_discovery_get_referrals',
      summary: 'Empty: there is no discovery service that could refer to others.',
      params: Type.Object(TARGET_NAME),
      result: Type.Array(Type.Object({})),
      call: () => [],
    }),
    method({
      name: 'nvmf_subsystem_add_ns',
      summary: 'Makes a bdev a namespace, also of guests that are connected.',
      params: AddNamespace,
      relaxed: true,
      result: Count('NSID'),
      examples: [
        {
          params: { nqn: 'nqn.2019-07.io.spdk:cnode0', namespace: { bdev_name: 'disk' } },
          result: 1,
        },
      ],
      call: ({ nqn, namespace }) => target.addNamespace(nqn, namespace.bdev_name, namespace),
    }),
    method({
      name: 'nvmf_subsystem_remove_ns',
      summary: 'Takes a namespace away, also from guests that are connected.',
      params: Type.Object({ ...NQN, nsid: Uint('NSID', U32_MAX, 1) }),
      result: DONE,
      call: async ({ nqn, nsid }) => {
        await target.removeNamespace(nqn, nsid);
        return true;
      },
    }),
    method({
      name: 'nvmf_subsystem_add_host',
      summary: 'Adds a host to the list of the subsystem. A vfio-user client has no host NQN.',
      params: Type.Object({
        ...Host,
        dhchap_key: Optional(Text('not supported: there is no keyring')),
        dhchap_ctrlr_key: Optional(Text('not supported: there is no keyring')),
      }),
      relaxed: true,
      result: DONE,
      call: async ({ nqn, host, dhchap_key, dhchap_ctrlr_key }) => {
        if (dhchap_key !== undefined || dhchap_ctrlr_key !== undefined) {
          throw new InvalidError(`key 'dhchap_key': there is no key of that name`);
        }
        await target.configureSubsystem(nqn, (subsystem) => subsystem.addHost(host));
        return true;
      },
    }),
    method({
      name: 'nvmf_subsystem_remove_host',
      summary: 'Removes a host from the list of the subsystem.',
      params: Type.Object({ ...Host, timeout_ms: Optional(Uint(IGNORED)) }),
      result: DONE,
      call: async ({ nqn, host }) => {
        await target.configureSubsystem(nqn, (subsystem) => subsystem.removeHost(host));
        return true;
      },
    }),
    method({
      name: 'nvmf_subsystem_allow_any_host',
      summary: 'Lets any host in, or only those of the list.',
      params: Type.Object({ ...NQN, allow_any_host: Bool('any host') }),
      result: DONE,
      call: async ({ nqn, allow_any_host }) => {
        await target.configureSubsystem(nqn, (subsystem) => {
          subsystem.allowAnyHost = allow_any_host;
        });
        return true;
      },
    }),
  ];
}
