/**
 * Methods about which host reaches which namespace and how well (masking, ANA). A vfio-user client is no host with a name, and has one path:
 * what asks for more than all namespaces, all optimized, is refused.
 */
import { Type } from 'typebox';
import type { Target } from '../../target/target.ts';
import { InvalidError } from '../../util/errors.ts';
import { Bool, DONE, IGNORED, TARGET_NAME, Text, U32_MAX, Uint } from '../../util/schema.ts';
import { method } from '../dispatcher.ts';
import { ListenAddress } from './listeners.ts';

const { Optional } = Type;
const NQN = { nqn: Text('NQN of the subsystem'), ...TARGET_NAME };
const NSID = Uint('NSID', U32_MAX, 1);

export function accessMethods(target: Target) {
  /** Throws InvalidError if there is no such namespace. */
  const checkNamespace = (nqn: string, nsid: number): void => {
    if (!target.subsystem(nqn).namespaces.has(nsid)) {
      throw new InvalidError(`key 'nsid': ${nqn} has no namespace ${nsid}`);
    }
  };
  const mask = <const N extends string>(name: N, summary: string) =>
    method({
      name,
      summary,
      params: Type.Object({
        ...NQN,
        nsid: NSID,
        host: Text('NQN of a host'),
        timeout_ms: Optional(Uint(IGNORED)),
        visible: Optional(Bool(IGNORED)),
      }),
      result: DONE,
      call: ({ nqn, nsid }) => {
        checkNamespace(nqn, nsid);
        throw new InvalidError(
          `namespace ${nsid} is visible to all hosts: there is no masking (no_auto_visible)`,
        );
      },
    });

  return [
    mask(
      'nvmf_ns_add_host',
      'Refused: each namespace is visible to every client of its subsystem.',
    ),
    mask(
      'nvmf_ns_remove_host',
      'Refused: each namespace is visible to every client of its subsystem.',
    ),
    method({
      name: 'nvmf_subsystem_listener_set_ana_state',
      summary: 'Refused, as SPDK does for a subsystem without ana_reporting.',
      params: Type.Object({
        ...NQN,
        listen_address: ListenAddress,
        ana_state: Type.Enum(['optimized', 'non_optimized', 'inaccessible'], {
          description: 'state of the path',
        }),
        anagrpid: Optional(Uint('ANA group', U32_MAX)),
      }),
      result: DONE,
      call: ({ nqn }) => {
        target.subsystem(nqn);
        throw new InvalidError(`ANA reporting of ${nqn} is disabled, and cannot be enabled`);
      },
    }),
    method({
      name: 'nvmf_subsystem_set_ns_ana_group',
      summary: 'Refused, as SPDK does for a subsystem without ana_reporting.',
      params: Type.Object({ ...NQN, nsid: NSID, anagrpid: Uint('ANA group', U32_MAX, 1) }),
      result: DONE,
      call: ({ nqn, nsid }) => {
        checkNamespace(nqn, nsid);
        throw new InvalidError(`ANA reporting of ${nqn} is disabled, and cannot be enabled`);
      },
    }),
  ];
}
