/** Listeners of a subsystem, and the controllers and queue pairs of the guests connected to them. */
import { Type } from 'typebox';
import type { Listener, Subsystem } from '../../target/subsystem.ts';
import type { Target } from '../../target/target.ts';
import { InvalidError } from '../../util/errors.ts';
import { method, type RpcMethod } from '../dispatcher.ts';
import { IGNORED, Path, TARGET_NAME, Text, Unsupported } from '../schema.ts';
import { isVfioUser } from './transport.ts';

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

/** A vfio-user client does not say which host it is. */
const NO_HOST = { hostnqn: '', hostid: '00000000-0000-0000-0000-000000000000' };

function checkTransport(trtype: string): void {
  if (!isVfioUser(trtype)) {
    throw new InvalidError(`key 'listen_address.trtype' must be VFIOUSER, not '${trtype}'`);
  }
}

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
  return [...subsystem.listeners.values()].flatMap((listener) =>
    (listener.endpoint.controller?.qpairs ?? []).map(({ qid, reactor }) => ({
      cntlid: listener.endpoint.controller?.cntlid,
      qid,
      state: 'enabled',
      thread: `reactor_${reactor}`,
      hostnqn: NO_HOST.hostnqn,
      listen_address: describeAddress(listener),
    })),
  );
}

export function listenerMethods(target: Target): RpcMethod[] {
  const query = (
    name: string,
    summary: string,
    describe: (subsystem: Subsystem) => unknown,
  ): RpcMethod =>
    method({
      name,
      summary,
      params: Type.Object(NQN),
      call: ({ nqn }) => describe(target.subsystem(nqn)),
    });

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
      call: async ({ nqn, listen_address }) => {
        const { trtype, traddr, adrfam = 'unknown', trsvcid = '' } = listen_address;
        checkTransport(trtype);
        await target.addListener(nqn, { traddr, adrfam, trsvcid });
        return true;
      },
    }),
    method({
      name: 'nvmf_subsystem_remove_listener',
      summary: 'Disconnects the VM, and removes the socket.',
      params: Type.Object({ ...NQN, listen_address: ListenAddress }),
      call: async ({ nqn, listen_address }) => {
        checkTransport(listen_address.trtype);
        await target.removeListener(nqn, listen_address.traddr);
        return true;
      },
    }),
    query('nvmf_subsystem_get_listeners', 'The listeners of a subsystem.', (subsystem) =>
      [...subsystem.listeners.values()].map((listener) => ({ address: describeAddress(listener) })),
    ),
    query(
      'nvmf_subsystem_get_controllers',
      'The controllers of the VMs that are connected.',
      describeControllers,
    ),
    query(
      'nvmf_subsystem_get_qpairs',
      'The I/O queue pairs of the VMs that are connected.',
      describeQpairs,
    ),
  ];
}
