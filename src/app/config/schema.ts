/** The short form of a configuration file, as a schema: what checks it, what types it, and (config/schema.json) what editors complete. */
import { type Static, type TSchema, Type } from 'typebox';
import { BLOCK_SIZES } from '../../bdev/disk.ts';
import { ON_RECONNECT } from '../../bdev/nbd/descriptor.ts';
import { MAX_NAMESPACES, MAX_REACTORS } from '../../limits.ts';
import { MAX_LISTENERS } from '../../target/model/subsystem.ts';
import { UUID_PATTERN } from '../../util/uuid.ts';

const { Optional } = Type;

const text = (description: string, pattern: string, expected: string) =>
  Type.String({ description, pattern, expected });

const FilePath = (description: string) => text(description, '^[^\\u0000]+$', 'a path');

const Size = (description: string) =>
  Type.Union(
    [
      Type.String({ pattern: '^\\d{1,15}(\\.\\d{1,6})?([KMGTkmgt]i?)?[Bb]?$' }),
      Type.Integer({ minimum: 1 }),
    ],
    {
      description: `${description}: like 512M, 20G, 1T, or a number of bytes`,
      expected: 'a size like 20G',
    },
  );

const count = (description: string, minimum: number, maximum: number) =>
  Type.Integer({
    description,
    minimum,
    maximum,
    expected: `a whole number from ${minimum} to ${maximum}`,
  });

const printable = (description: string, length: number) =>
  text(description, `^[ -~]{1,${length}}$`, `1 to ${length} printable ASCII characters`);

const Bool = (description: string) => Type.Boolean({ description, expected: 'true or false' });

const closed = { additionalProperties: false };

const Limits = Type.Object(
  {
    iops: Optional(
      count('reads and writes a second, rounded up to thousands; 0: no limit', 0, 2 ** 31),
    ),
    mbps: Optional(count('MiB a second of reads and writes; 0: no limit', 0, 2 ** 20)),
    'read-mbps': Optional(count('MiB a second of reads; 0: no limit', 0, 2 ** 20)),
    'write-mbps': Optional(count('MiB a second of writes; 0: no limit', 0, 2 ** 20)),
  },
  { ...closed, description: 'rate limits' },
);

/** A disk that is not just a path. */
export const Disk = Type.Object(
  {
    file: Optional(
      FilePath('a file or block device; a relative path starts at the folder of this file'),
    ),
    size: Optional(
      Size('of the file: it is made, sparse, if it is not there, and made longer if it is shorter'),
    ),
    ram: Optional(Size('a RAM disk of this size instead of a file; it is empty after each start')),
    null: Optional(
      Size('a disk of this size that keeps nothing, for measuring, instead of a file'),
    ),
    nbd: Optional(
      text(
        'an export of an NBD server instead of a file: nbd://HOST[:PORT]/[EXPORT] or nbd+unix:///[EXPORT]?socket=PATH',
        '^nbd(\\+unix)?://',
        'the address of an export, nbd://… or nbd+unix://…',
      ),
    ),
    timeout: Optional(
      count(
        's that a command waits for the NBD server, or for a connection to it, before it fails; 0: for ever; default: 25',
        0,
        3600,
      ),
    ),
    'reconnect-delay': Optional(
      count('s between two attempts to reach the NBD server again, at most; default: 1', 1, 3600),
    ),
    'open-timeout': Optional(
      count('s that an NBD server is waited for that is not there; default: 0', 0, 3600),
    ),
    'on-reconnect': Optional(
      Type.Enum(ON_RECONNECT, {
        description:
          'what is made of an NBD server that was lost while it had data that was not flushed; default: fail-flush',
        expected: ON_RECONNECT.join(' or '),
      }),
    ),
    name: Optional(
      text(
        'of the bdev; default: VM/FILE, VM/ram1, VM/null1, VM/nbd1, …',
        '^[^\\u0000-\\u001f\\u007f]{1,200}$',
        '1 to 200 characters without control characters',
      ),
    ),
    nsid: Optional(
      count('number of the namespace; default: the smallest free one', 1, MAX_NAMESPACES),
    ),
    readonly: Optional(Bool('write protected; default: false')),
    direct: Optional(Bool('past the page cache (O_DIRECT); default: false')),
    'block-size': Optional(
      Type.Enum(BLOCK_SIZES, {
        description: 'bytes; default: 512, or what the device has',
        expected: BLOCK_SIZES.join(' or '),
      }),
    ),
    uuid: Optional(
      text('default: made from the path, or from VM and name', UUID_PATTERN, 'a UUID'),
    ),
    nguid: Optional(
      text('default: the UUID', '^[0-9a-fA-F]{32}$', '32 hexadecimal digits (in quotes)'),
    ),
    eui64: Optional(
      text('default: none', '^[0-9a-fA-F]{16}$', '16 hexadecimal digits (in quotes)'),
    ),
    qos: Optional(Limits),
  },
  { ...closed, expected: "a path, or a mapping with 'file', 'ram', 'null' or 'nbd'" },
);

const vm = (disk: TSchema) => ({
  disks: Optional(
    Type.Array(disk as typeof Disk, { maxItems: MAX_NAMESPACES, expected: 'a list of disks' }),
  ),
  socket: Optional(
    FilePath('folder of the socket, which is FOLDER/cntrl; default: VM in /run/doorbell'),
  ),
  sockets: Optional(
    Type.Array(FilePath('folder of a socket'), {
      description: 'several VMs that share the disks: a folder for each',
      minItems: 1,
      maxItems: MAX_LISTENERS,
      expected: `a list of 1 to ${MAX_LISTENERS} folders`,
    }),
  ),
  serial: Optional(printable('serial number; default: made from the name', 20)),
  model: Optional(printable('model; default: Doorbell Controller', 40)),
  nqn: Optional(
    Type.String({ description: 'default: nqn.2026-11.io.doorbell:VM', expected: 'an NQN' }),
  ),
  'max-disks': Optional(
    count('namespaces that there can be; default: 32, or as many as there are', 1, MAX_NAMESPACES),
  ),
});

const VM_NAME = '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$';

const Cores = Type.Union(
  [
    Type.String({ pattern: '^[0-9]+([,-][0-9]+)*$' }),
    Type.Integer({ minimum: 0 }),
    Type.Array(Type.Integer({ minimum: 0 }), { minItems: 1 }),
  ],
  {
    description: 'processors of the reactors: 1-3, or [1, 2, 3]',
    expected: 'processors: 1-3, or [1, 2, 3]',
  },
);

const Http = Type.Object(
  {
    address: Type.Union([Type.String(), Type.Integer()], {
      description: 'PORT, ADDRESS:PORT or [IPV6]:PORT',
      expected: 'PORT, ADDRESS:PORT or [IPV6]:PORT',
    }),
    'token-file': Optional(FilePath('clients must show the token in this file (mode 0600)')),
    origins: Optional(Type.Array(Type.String(), { description: 'where reverse proxies serve it' })),
  },
  closed,
);

const file = (disk: TSchema, http: TSchema) =>
  Type.Object(
    {
      ...vm(disk),
      vms: Optional(
        Type.Record(
          Type.String({ pattern: VM_NAME }),
          Type.Object(vm(disk), { ...closed, expected: 'a mapping with disks' }),
          {
            ...closed,
            description: 'VMs by their names',
            expected: 'a mapping of names to VMs',
          },
        ),
      ),
      cores: Optional(Cores),
      reactors: Optional(count('polling threads, if `cores` does not say it', 1, MAX_REACTORS)),
      'spin-us': Optional(count('how long an idle reactor polls before it sleeps, in µs', 0, 1e9)),
      'max-sleep-us': Optional(count('how long an idle reactor sleeps at most, in µs', 1, 1e6)),
      'trap-doorbells': Optional(
        Bool('sleep without polling when idle: best for Linux guests; default: false'),
      ),
      'map-file-memory': Optional(
        Bool(
          'map guest memory whatever file is behind it, and not only memfds and files on tmpfs and hugetlbfs; default: false',
        ),
      ),
      'require-shared-memory': Optional(
        Bool(
          'refuse VMs whose memory is not shared, instead of serving them slowly; default: false',
        ),
      ),
      'rpc-socket': Optional(FilePath('path of the JSON-RPC socket')),
      'rpc-socket-mode': Optional(
        text('its mode, octal, in quotes', '^0?[0-7]{3}$', 'an octal mode in quotes, like "660"'),
      ),
      'rpc-socket-owner': Optional(
        Type.String({
          description: 'whose it is: user, user:group or :group',
          expected: 'user, user:group or :group',
        }),
      ),
      http: Optional(http as typeof Http),
    },
    { ...closed, expected: 'a mapping with disks or vms' },
  );

/** A file whose disks and `http` are written out. */
export const ShortForm = file(Disk, Http);
export type ShortForm = Static<typeof ShortForm>;
export type ShortDisk = Static<typeof Disk>;
export type ShortVm = Static<ReturnType<typeof Type.Object<ReturnType<typeof vm>>>>;

/** The schema for editors: a disk may be just a path, `http` just an address. */
export function editorSchema(): unknown {
  const disk = Type.Union([FilePath('a file or block device'), Disk]);
  const http = Type.Union([Http.properties.address, Http], {
    description: 'dashboard, metrics and JSON-RPC over HTTP',
  });
  const schema = JSON.stringify(file(disk, http), (key, value) =>
    key === 'expected' ? undefined : value,
  );
  return {
    $schema: 'http://json-schema.org/draft-07/schema#',
    title: 'Doorbell configuration',
    ...JSON.parse(schema),
  };
}
