/** Listeners of a subsystem, and the controllers and queue pairs of the guests connected to them. */
import { Type } from 'typebox';
import { parseAddress } from '../../target/model/apply.ts';
import type { Listener, Subsystem } from '../../target/subsystem.ts';
import type { Target } from '../../target/target.ts';
import { DONE, IGNORED, Path, TARGET_NAME, Text, Unsupported } from '../../util/schema.ts';
import { method } from '../dispatcher.ts';

const { Optional } = Type;
const NQN = { nqn: Text('NQN of the subsystem'), ...TARGET_NAME };

export const ListenAddress = Type.Object(
  {
    trtype: Text('VFIOUSER, in upper or lower case'),
    traddr: Path('absolute path of an existing folder; the socket is FOLDER/cntrl'),
    adrfam: Optional(Text(`shown; ${IGNORED}`)),
    trsvcid: Optional(Text(`shown; ${IGNORED}`)),
  },
  { additionalProperties: false },
);

/** An address as SPDK shows it. */
export const AddressInfo = Type.Object({
  trtype: Type.String(),
  adrfam: Type.String(),
  traddr: Type.String(),
  trsvcid: Type.String(),
});

/** A vfio-user client does not say which host it is. */
const NO_HOST = { hostnqn: '', hostid: '00000000-0000-0000-0000-000000000000' };

/** An address as SPDK shows it. */
export function describeAddress({ address }: Listener) {
  const { adrfam, traddr, trsvcid } = address;
  return { trtype: 'VFIOUSER', adrfam, traddr, trsvcid };
}

function describeControllers(subsystem: Subsystem) {
  return [...subsystem.listeners.values()].flatMap(({ endpoint }) =>
    endpoint.controller === undefined
      ? []
      : [
          {
            cntlid: endpoint.controller.cntlid,
            cntrltype: 'io',
            ...NO_HOST,
            num_io_qpairs: endpoint.controller.qpairs.length,
          },
        ],
  );
}

function describeQpairs(subsystem: Subsystem) {
  return [...subsystem.listeners.values()].flatMap((listener) => {
    const { controller } = listener.endpoint;
    if (controller === undefined) {
      return [];
    }
    // The admin queue is there as long as the controller is enabled, and belongs to the main thread.
    const admin = controller.enabled ? [{ qid: 0, thread: 'app_thread' }] : [];
    const io = controller.qpairs.map(({ qid, reactor }) => ({ qid, thread: `reactor_${reactor}` }));
    return [...admin, ...io].map(({ qid, thread }) => ({
      cntlid: controller.cntlid,
      qid,
      state: 'enabled',
      thread,
      hostnqn: NO_HOST.hostnqn,
      listen_address: describeAddress(listener),
    }));
  });
}

export function listenerMethods(target: Target) {
  return [
    method({
      name: 'nvmf_subsystem_add_listener',
      summary: 'Listens for a VM: one socket, one controller.',
      params: Type.Object({
        ...NQN,
        listen_address: ListenAddress,
        secure_channel: Optional(Unsupported(false)),
        ana_state: Optional(Type.Literal('optimized', { description: 'there are no ANA groups' })),
        sock_impl: Optional(Text(IGNORED)),
        numa_id: Optional(Type.Integer({ description: IGNORED })),
      }),
      relaxed: true,
      result: DONE,
      examples: [
        {
          params: {
            nqn: 'nqn.2019-07.io.spdk:cnode0',
            listen_address: { trtype: 'VFIOUSER', traddr: '/run/vm0' },
          },
          result: true,
        },
      ],
      call: async ({ nqn, listen_address }) => {
        await target.addListener(nqn, parseAddress(listen_address));
        return true;
      },
    }),
    method({
      name: 'nvmf_subsystem_remove_listener',
      summary: 'Disconnects the VM, and removes the socket.',
      params: Type.Object({ ...NQN, listen_address: ListenAddress }),
      result: DONE,
      call: async ({ nqn, listen_address }) => {
        await target.removeListener(nqn, parseAddress(listen_address).traddr);
        return true;
      },
    }),
    method({
      name: 'nvmf_subsystem_get_listeners',
      summary: 'The listeners of a subsystem.',
      params: Type.Object(NQN),
      result: Type.Array(Type.Object({ address: AddressInfo })),
      call: ({ nqn }) =>
        [...target.subsystem(nqn).listeners.values()].map((listener) => ({
          address: describeAddress(listener),
        })),
    }),
    method({
      name: 'nvmf_subsystem_get_controllers',
      summary: 'The controllers of the VMs that are connected.',
      params: Type.Object(NQN),
      result: Type.Array(
        Type.Object({
          cntlid: Type.Integer(),
          cntrltype: Type.String(),
          hostnqn: Type.String({ description: 'empty: a vfio-user client has no name' }),
          hostid: Type.String(),
          num_io_qpairs: Type.Integer(),
        }),
      ),
      call: ({ nqn }) => describeControllers(target.subsystem(nqn)),
    }),
    method({
      name: 'nvmf_subsystem_get_qpairs',
      summary:
        'The queue pairs of the VMs that are connected: the admin queue, once it is enabled, is number 0.',
      params: Type.Object(NQN),
      result: Type.Array(
        Type.Object({
          cntlid: Type.Integer(),
          qid: Type.Integer(),
          state: Type.String(),
          thread: Type.String(),
          hostnqn: Type.String(),
          listen_address: AddressInfo,
        }),
      ),
      call: ({ nqn }) => describeQpairs(target.subsystem(nqn)),
    }),
  ];
}
