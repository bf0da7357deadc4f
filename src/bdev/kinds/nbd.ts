/** Exports of NBD servers. The methods' names are not those of SPDK's `nbd_*`, which export bdevs to the kernel. */
import { BLOCK_SIZES, type Disk } from '../disk.ts';
import type { BdevKind } from '../kind.ts';
import { NbdBdev } from '../nbd/bdev.ts';
import { ON_RECONNECT, type OnReconnect } from '../nbd/descriptor.ts';

/** Seconds, the longest that can be asked for. */
const MAX_SECONDS = 3600;
/** Below the 30 s after which Linux resets a controller. */
const DEFAULT_TIMEOUT = 25;
const DEFAULT_RECONNECT_DELAY = 1;

export const NBD = {
  name: 'nbd',
  verbs: ['connect', 'disconnect'],
  summary:
    "Makes a bdev of an export of an NBD server: qemu-nbd, qemu-storage-daemon, nbdkit and others. One connection for each reactor that uses it. -22 if the server's block sizes, or what it knows, are of no use here.",
  deletion: 'What is with a server that does not answer is left to it.',
  parameters: ({ Type, Text, Bool, Uint, Uuid }) =>
    Type.Object({
      name: Text('name of the new bdev'),
      uri: Type.String({
        maxLength: 16384,
        expected: 'the address of an export',
        description:
          'nbd://HOST[:PORT]/[EXPORT] or nbd+unix:///[EXPORT]?socket=PATH, with an absolute path',
      }),
      block_size: Type.Optional(
        Type.Enum(BLOCK_SIZES, {
          description:
            'logical block size in bytes; default: 512, or 4096 if the server asks for more than 512',
        }),
      ),
      uuid: Type.Optional(Uuid('default: made from the URI, always the same')),
      readonly: Type.Optional(Bool('the namespace is write protected')),
      timeout: Type.Optional(
        Uint(
          `s that a command waits for the server, or for a connection to it, before it fails (path related); 0: for ever; default: ${DEFAULT_TIMEOUT}`,
          MAX_SECONDS,
        ),
      ),
      reconnect_delay: Type.Optional(
        Uint(
          `s between two attempts to connect again, at most; default: ${DEFAULT_RECONNECT_DELAY}`,
          MAX_SECONDS,
          1,
        ),
      ),
      open_timeout: Type.Optional(
        Uint('s that a server is waited for that is not there; default: 0', MAX_SECONDS),
      ),
      on_reconnect: Type.Optional(
        Type.Enum(ON_RECONNECT, {
          description:
            "what is made of a server that was lost while it had data that was not flushed: 'fail-flush' (the default): no flush succeeds until bdev_nbd_reopen; 'fua': no server ever has any, since each write is durable when it completes; 'trust': it has not lost anything",
        }),
      ),
    }),
  example: {
    params: { name: 'disk', uri: 'nbd+unix:///?socket=/run/nbd.sock' },
    result: 'disk',
  },
  kept: {
    uri: undefined,
    block_size: undefined,
    readonly: false,
    timeout: DEFAULT_TIMEOUT,
    reconnect_delay: DEFAULT_RECONNECT_DELAY,
    open_timeout: 0,
    on_reconnect: 'fail-flush',
    uuid: undefined,
  },
  create: (identity, params, { files, notice }) =>
    NbdBdev.open(
      identity,
      {
        uri: String(params.uri),
        blockSize: params.block_size as number | undefined,
        readonly: params.readonly === true,
        timeout: Number(params.timeout ?? DEFAULT_TIMEOUT),
        reconnectDelay: Number(params.reconnect_delay ?? DEFAULT_RECONNECT_DELAY),
        openTimeout: Number(params.open_timeout ?? 0),
        onReconnect: (params.on_reconnect ?? 'fail-flush') as OnReconnect,
      },
      { reactors: files.reactors, notice },
    ),
  save: (bdev: Disk) => {
    const { blockSize, options } = bdev as NbdBdev;
    return {
      uri: options.uri,
      block_size: blockSize,
      readonly: options.readonly,
      timeout: options.timeout,
      reconnect_delay: options.reconnectDelay,
      open_timeout: options.openTimeout,
      on_reconnect: options.onReconnect,
    };
  },
} as const satisfies BdevKind;
