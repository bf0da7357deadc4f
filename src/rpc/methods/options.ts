/** Options that SPDK takes before initialisation (--wait-for-rpc). Most are about things that this target has not. */
import { type TObject, Type } from 'typebox';
import type { Target } from '../../target/target.ts';
import { FailedError } from '../../util/errors.ts';
import {
  Bool,
  DONE,
  IGNORED,
  Text,
  U16_MAX,
  U32_MAX,
  Uint,
  Unsupported,
} from '../../util/schema.ts';
import { method } from '../dispatcher.ts';

const { Optional } = Type;
const Ignored = Optional(Uint(IGNORED));
const IgnoredBool = Optional(Bool(IGNORED));
const IgnoredList = (description: string) =>
  Optional(Type.Array(Type.String(), { maxItems: 64, description }));
const NoPassthrough = Optional(Unsupported(false));

const NvmfConfig = Type.Object({
  acceptor_poll_rate: Ignored,
  conn_sched: Optional(Text(IGNORED)),
  poll_groups_mask: Optional(Text(`the reactors are chosen at the start; ${IGNORED}`)),
  discovery_filter: Optional(Text(`there is no discovery service; ${IGNORED}`)),
  discovery_filters: Optional(
    Type.Union([Type.String(), Type.Array(Type.String(), { maxItems: 64 })], {
      description: `there is no discovery service; ${IGNORED}`,
      expected: 'text, or a list of texts',
    }),
  ),
  dhchap_digests: IgnoredList(`there is no authentication; ${IGNORED}`),
  dhchap_dhgroups: IgnoredList(`there is no authentication; ${IGNORED}`),
  dup_host_policy: Optional(Text(`a socket has one client; ${IGNORED}`)),
  admin_cmd_passthru: Optional(
    Type.Object(
      {
        identify_ctrlr: NoPassthrough,
        identify_uuid_list: NoPassthrough,
        get_log_page: NoPassthrough,
        get_set_features: NoPassthrough,
        sanitize: NoPassthrough,
        security_send_recv: NoPassthrough,
        fw_update: NoPassthrough,
        nvme_mi: NoPassthrough,
        vendor_specific: NoPassthrough,
      },
      { additionalProperties: false },
    ),
  ),
});

export function optionMethods(target: Target) {
  let maxSubsystemsSet = false;
  const accept = <const N extends string, P extends TObject>(name: N, summary: string, params: P) =>
    method({ name, summary, phase: 'startup', params, result: DONE, call: () => true });

  return [
    accept(
      'bdev_set_options',
      'Accepted: there are no pools of I/O structures or buffers to size.',
      Type.Object({
        bdev_io_pool_size: Ignored,
        bdev_io_cache_size: Ignored,
        bdev_auto_examine: IgnoredBool,
        bdev_rw_bypass: IgnoredBool,
        iobuf_small_cache_size: Ignored,
        iobuf_large_cache_size: Ignored,
        small_buf_pool_size: Ignored,
        large_buf_pool_size: Ignored,
      }),
    ),
    accept(
      'iobuf_set_options',
      'Accepted: there are no buffers to size.',
      Type.Object({
        small_pool_count: Ignored,
        large_pool_count: Ignored,
        small_bufsize: Ignored,
        large_bufsize: Ignored,
        enable_numa: IgnoredBool,
      }),
    ),
    method({
      name: 'nvmf_set_max_subsystems',
      summary: 'How many subsystems there may be. Once.',
      phase: 'startup',
      params: Type.Object({
        max_subsystems: Optional(Uint('default (and 0): 1024', U32_MAX)),
      }),
      result: DONE,
      call: ({ max_subsystems = 0 }) => {
        if (maxSubsystemsSet) {
          throw new FailedError('Must not call more than once');
        }
        if (max_subsystems > 0) {
          maxSubsystemsSet = true;
          target.maxSubsystems = max_subsystems;
        }
        return true;
      },
    }),
    accept(
      'nvmf_set_config',
      'Accepted as far as it asks for nothing that is not there.',
      NvmfConfig,
    ),
    accept(
      'nvmf_set_crdt',
      'Accepted: no command is answered with a request to retry it later.',
      Type.Object({
        crdt1: Optional(Uint(IGNORED, U16_MAX)),
        crdt2: Optional(Uint(IGNORED, U16_MAX)),
        crdt3: Optional(Uint(IGNORED, U16_MAX)),
      }),
    ),
  ];
}
