/** The vfio-user transport, with SPDK's parameters and, where we act on them, SPDK's defaults. */
import { Type } from 'typebox';
import {
  MAX_ADMIN_QUEUE_ENTRIES,
  MAX_IO_QUEUE_PAIRS,
  MAX_QUEUE_ENTRIES,
  MAX_TRANSFER_BYTES,
  MIN_TRANSFER_LIMIT_BYTES,
} from '../../limits.ts';
import { isVfioUser, planTransport } from '../../target/model/transport.ts';
import type { Target } from '../../target/target.ts';
import { ErrnoError } from '../../util/errors.ts';
import {
  Bool,
  DONE,
  IGNORED,
  TARGET_NAME,
  Text,
  U16_MAX,
  U32_MAX,
  Uint,
  Unsupported,
} from '../../util/schema.ts';
import { method } from '../dispatcher.ts';

const { Optional } = Type;
const Ignored32 = Optional(Uint(IGNORED, U32_MAX));
const Shown32 = Optional(Uint('shown by nvmf_get_transports, and has no effect', U32_MAX));
const IgnoredBool = Optional(Bool(IGNORED));

const CreateTransport = Type.Object({
  trtype: Text('VFIOUSER, in upper or lower case'),
  ...TARGET_NAME,
  max_queue_depth: Optional(Uint('entries of an I/O queue; default: 256', MAX_QUEUE_ENTRIES, 2)),
  max_io_qpairs_per_ctrlr: Optional(
    Uint(
      `I/O queue pairs of a controller; default, and the most that one has: ${MAX_IO_QUEUE_PAIRS}`,
      U16_MAX,
      1,
    ),
  ),
  max_io_size: Optional(
    Uint(
      'bytes: 4096 times a power of two; default: 131072',
      MAX_TRANSFER_BYTES,
      MIN_TRANSFER_LIMIT_BYTES,
    ),
  ),
  disable_mappable_bar0: Optional(Bool('doorbells come as messages, not through shared memory')),
  map_file_memory: Optional(
    Bool(
      'map guest memory whatever file is behind it, and not only memfds and files on tmpfs and hugetlbfs: a VMM with a file system of its own can hold up every VM then',
    ),
  ),
  require_shared_memory: Optional(
    Bool(
      'refuse a VM whose memory is not shared: its controller fails, and says why; without this it is served by messages, which is slow',
    ),
  ),
  max_aq_depth: Optional(
    Uint('shown by nvmf_get_transports, and has no effect', MAX_ADMIN_QUEUE_ENTRIES, 2),
  ),
  in_capsule_data_size: Shown32,
  iobuf_small_cache_size: Shown32,
  iobuf_large_cache_size: Shown32,
  abort_timeout_sec: Shown32,
  ack_timeout: Shown32,
  data_wr_pool_size: Shown32,
  disable_command_passthru: Optional(Bool('there is no passthrough to disable; shown')),
  kas: Optional(Uint('shown by nvmf_get_transports, and has no effect', U16_MAX)),
  min_kato: Shown32,
  io_unit_size: Ignored32,
  num_shared_buffers: Ignored32,
  buf_cache_size: Ignored32,
  acceptor_poll_rate: Ignored32,
  acceptor_backlog: Optional(Type.Integer({ description: IGNORED })),
  association_timeout: Ignored32,
  num_cqe: Ignored32,
  max_srq_depth: Ignored32,
  sock_priority: Ignored32,
  control_msg_num: Ignored32,
  no_srq: IgnoredBool,
  no_wr_batching: IgnoredBool,
  c2h_success: IgnoredBool,
  zcopy: IgnoredBool,
  disable_adaptive_irq: Optional(
    Bool('interrupt for every batch of completions, also a host still busy with the last one'),
  ),
  disable_shadow_doorbells: Optional(
    Bool('do not offer shadow doorbells; they are only with disable_mappable_bar0'),
  ),
  enable_intr_mode_sq_spreading: IgnoredBool,
  dif_insert_or_strip: Optional(Unsupported(false)),
  masked_oncs: Optional(Type.Array(Type.String(), { maxItems: 0, description: 'not supported' })),
  masked_fuses: Optional(Type.Array(Type.String(), { maxItems: 0, description: 'not supported' })),
});

export function transportMethods(target: Target) {
  return [
    method({
      name: 'nvmf_create_transport',
      summary: 'Makes the vfio-user transport. There is at most one.',
      params: CreateTransport,
      relaxed: true,
      result: DONE,
      examples: [{ params: { trtype: 'VFIOUSER' }, result: true }],
      call: async (params) => {
        await target.createTransport(planTransport(params));
        return true;
      },
    }),
    method({
      name: 'nvmf_get_transports',
      summary: 'The transports.',
      params: Type.Object({
        trtype: Optional(Text('only this one; -19 if there is none')),
        ...TARGET_NAME,
      }),
      result: Type.Array(Type.Record(Type.String(), Type.Unknown())),
      call: ({ trtype }) => {
        const { transport } = target;
        if (trtype !== undefined && (!isVfioUser(trtype) || transport === undefined)) {
          throw new ErrnoError('ENODEV', `there is no transport '${trtype}'`);
        }
        return transport === undefined ? [] : [transport.report];
      },
    }),
  ];
}
