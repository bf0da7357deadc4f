/** Bdevs that make another one slow or bad, for trying out guests: delay and error, with SPDK's methods. */
import { Type } from 'typebox';
import { LATENCIES } from '../../bdev/delay.ts';
import { INJECTED_ERRORS, type InjectedError } from '../../bdev/injections.ts';
import { OPERATIONS, Op } from '../../bdev/op.ts';
import { DelayBdev, ErrorBdev } from '../../bdev/wrapper.ts';
import type { Target } from '../../target/target.ts';
import { ErrnoError } from '../../util/errors.ts';
import { DONE, Text, U8_MAX, U32_MAX, Uint } from '../../util/schema.ts';
import { method } from '../dispatcher.ts';
import { RpcCode, RpcError } from '../protocol.ts';

const { Optional } = Type;
const Microseconds = (what: string) => Uint(`µs by which ${what}`, U32_MAX);
const Uint64 = (what: string) => Optional(Uint(what));

/** Commands that an error can be injected into. */
const IO_TYPES = {
  read: [Op.READ],
  write: [Op.WRITE],
  flush: [Op.FLUSH],
  unmap: [Op.DISCARD],
  all: OPERATIONS.map(({ op }) => op),
  clear: [],
} as const;
const ERROR_TYPES = Object.keys(INJECTED_ERRORS) as InjectedError[];
/** A status code type has 3 bits. */
const MAX_SCT = 7;

export function faultMethods(target: Target) {
  return [
    method({
      name: 'bdev_delay_update_latency',
      summary: 'Changes a latency of a delay bdev. Commands that are delayed already stay so.',
      params: Type.Object({
        delay_bdev_name: Text('-32602 if there is none, -32600 if it is no delay bdev'),
        latency_type: Type.Enum(LATENCIES, { description: 'which of them' }),
        latency_us: Microseconds('commands are delayed'),
      }),
      result: DONE,
      call: async ({ delay_bdev_name, latency_type, latency_us }) => {
        const bdev = target.bdevs.find(delay_bdev_name);
        if (bdev === undefined) {
          throw new RpcError(RpcCode.INVALID_PARAMS, 'The requested bdev does not exist.');
        }
        if (!(bdev instanceof DelayBdev)) {
          throw new RpcError(RpcCode.INVALID_REQUEST, 'The requested bdev is not a delay bdev.');
        }
        await target.setLatency(bdev, latency_type, latency_us);
        return true;
      },
    }),
    method({
      name: 'bdev_error_inject_error',
      summary: 'Has the next commands of an error bdev fail, hang, or carry wrong data.',
      params: Type.Object({
        name: Text('the error bdev; -19 if there is none'),
        io_type: Type.Enum(Object.keys(IO_TYPES) as (keyof typeof IO_TYPES)[], {
          description: 'the commands; all: others, too; clear: inject nothing more',
        }),
        error_type: Type.Enum(ERROR_TYPES, {
          description:
            'failure: an internal error; pending: they do not complete until bdev_error_resume_pending, or as aborted when the guest resets the controller, or their ' +
            'memory or namespace is taken away; corrupt_data: a byte is changed (never in the buffer of a write); ' +
            'nomem: they are tried again after 100 µs; nvme_failure: nvme_sct and nvme_sc',
        }),
        num: Optional(Uint('how many commands; default: 1', U32_MAX)),
        queue_depth: Uint64('only while so many commands are at the bdev below; default: 0'),
        corrupt_offset: Uint64('of corrupt_data: which byte of the command; default: 0'),
        corrupt_value: Optional(Uint('of corrupt_data: the bits to be inverted; required', U8_MAX)),
        nvme_sct: Optional(Uint('of nvme_failure: status code type', MAX_SCT)),
        nvme_sc: Optional(Uint('of nvme_failure: status code', U8_MAX)),
      }),
      result: DONE,
      examples: [
        {
          params: { name: 'EE_Malloc0', io_type: 'read', error_type: 'failure', num: 3 },
          result: true,
        },
      ],
      call: ({ name, io_type, error_type, num = 1, nvme_sct = 0, nvme_sc = 0, ...rest }) => {
        const status = (nvme_sct << 8) | nvme_sc;
        if ((error_type === 'nvme_failure') !== (status !== 0)) {
          throw new ErrnoError(
            'EINVAL',
            `nvme_sct or nvme_sc must be given for error_type nvme_failure, and only for it`,
          );
        }
        const { queue_depth = 0, corrupt_offset = 0, corrupt_value = 0 } = rest;
        if (error_type === 'corrupt_data' && corrupt_value === 0) {
          throw new ErrnoError('EINVAL', 'corrupt_value must not be 0 for error_type corrupt_data');
        }
        const bdev = errorBdev(target, name);
        if (io_type === 'clear') {
          bdev.clear();
        }
        for (const op of IO_TYPES[io_type]) {
          bdev.inject(op, {
            error: error_type,
            count: num,
            status,
            queueDepth: queue_depth,
            corruptOffset: corrupt_offset,
            corruptValue: corrupt_value,
          });
        }
        return true;
      },
    }),
    method({
      name: 'bdev_error_resume_pending',
      summary: 'Has the commands of an error bdev that are pending go on.',
      params: Type.Object({ name: Text('the error bdev; -19 if there is none') }),
      result: DONE,
      examples: [{ params: { name: 'EE_Malloc0' }, result: true }],
      call: ({ name }) => {
        errorBdev(target, name).resumePending();
        return true;
      },
    }),
  ];
}

/** Throws ENODEV. */
function errorBdev(target: Target, name: string): ErrorBdev {
  const bdev = target.bdevs.get(name);
  if (!(bdev instanceof ErrorBdev)) {
    throw new ErrnoError('ENODEV', `bdev '${name}' is no error bdev`);
  }
  return bdev;
}
