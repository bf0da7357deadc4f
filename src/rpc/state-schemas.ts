/**
 * Snapshots, events and diagnoses as JSON schemas, for the OpenRPC document. The compiler checks them against what `src/target` makes.
 */
import { type TProperties, Type } from 'typebox';
import { EVENT_TYPES } from '../target/events.ts';
import { Count } from '../util/schema.ts';

const { Optional } = Type;
const Ns = (description: string) => Type.Number({ description: `ns; ${description}` });

const Latencies = Type.Array(
  Type.Array(Type.Number(), { minItems: 2, maxItems: 2, description: 'upper bound in ns, count' }),
  { description: 'histogram: sorted, without empty buckets' },
);

const IoTotals = Type.Object({
  readOps: Type.Number(),
  writeOps: Type.Number(),
  flushOps: Type.Number(),
  otherOps: Type.Number(),
  readBytes: Type.Number(),
  writeBytes: Type.Number(),
  errors: Type.Record(Type.String(), Type.Number(), {
    description: "completions with an error, by NVMe status (SCT and SC, like '0x281')",
  }),
  readLatency: Latencies,
  writeLatency: Latencies,
});

const QUEUE = {
  qid: Type.Integer(),
  cqid: Type.Integer(),
  reactor: Type.Integer(),
  size: Count('entries'),
  head: Count('next entry to be taken'),
  tail: Count("the guest's doorbell"),
  outstanding: Count('commands submitted and not completed'),
  cqSize: Count('entries'),
  cqHead: Count("the guest's doorbell"),
  cqTail: Count('next entry to be posted'),
  interrupts: Type.Boolean(),
  vector: Type.Integer(),
} satisfies TProperties;

/** See `Snapshot`. */
export const SnapshotSchema = Type.Object({
  version: Type.String(),
  pid: Type.Integer(),
  time: Type.String({ description: 'ISO 8601' }),
  ticks: Ns('monotonic clock'),
  uptimeSeconds: Type.Number(),
  memory: Type.Object({
    rss: Count('bytes'),
    heapUsed: Count('bytes'),
    external: Count('bytes'),
    guestBytes: Count('bytes of guests that are mapped'),
  }),
  reactors: Type.Array(
    Type.Object({
      index: Type.Integer(),
      core: Count('processor'),
      alive: Type.Boolean(),
      busyNs: Ns('with work'),
      idleNs: Ns('without'),
      sleeps: Count('times it went to sleep'),
      interrupts: Count('eventfds signalled'),
      controllers: Count('with a queue there'),
      queuePairs: Count('submission queues there'),
    }),
  ),
  bdevs: Type.Array(
    Type.Object({
      name: Type.String(),
      module: Type.String(),
      blockSize: Count('bytes'),
      numBlocks: Type.Integer(),
      uuid: Type.String(),
      claimedBy: Optional(
        Type.String({ description: 'NQN of a subsystem, or name of the bdev on top of it' }),
      ),
      writeBackError: Optional(
        Type.String({ description: 'errno of a failed write-back: no flush succeeds any more' }),
      ),
      server: Optional(
        Type.Object(
          {
            connections: Count('in use'),
            reconnects: Count('connections made anew'),
            requests: Count('sent'),
            inFlight: Count('not answered'),
          },
          { description: 'of a bdev whose data is on a server' },
        ),
      ),
      io: IoTotals,
    }),
  ),
  subsystems: Type.Array(
    Type.Object({
      nqn: Type.String(),
      serialNumber: Type.String(),
      modelNumber: Type.String(),
      namespaces: Type.Array(
        Type.Object({ nsid: Type.Integer(), bdev: Type.String(), uuid: Type.String() }),
      ),
      listeners: Type.Array(
        Type.Object({
          socket: Type.String(),
          controller: Optional(
            Type.Object({
              cntlid: Type.Integer(),
              connectedAt: Type.String({ description: 'ISO 8601' }),
              enabled: Type.Boolean(),
              io: IoTotals,
              namespaces: Type.Array(Type.Object({ nsid: Type.Integer(), io: IoTotals })),
              queues: Type.Array(Type.Object(QUEUE)),
            }),
          ),
        }),
      ),
    }),
  ),
});

/** See `TargetEvent`. */
export const EventSchema = Type.Object({
  seq: Count("counts the target's events, from 1"),
  time: Type.String({ description: 'ISO 8601' }),
  type: Type.Enum([...EVENT_TYPES]),
  nqn: Optional(Type.String()),
  socket: Optional(Type.String()),
  nsid: Optional(Type.Integer()),
  bdev: Optional(Type.String()),
  cqid: Optional(Type.Integer()),
  from: Optional(Count('reactor')),
  reactor: Optional(Type.Integer()),
  message: Optional(Type.String()),
});

const AdminQueue = Type.Object({
  sqSize: Type.Integer(),
  cqSize: Type.Integer(),
  head: Type.Integer(),
  tail: Type.Integer(),
  cqHead: Type.Integer(),
  cqTail: Type.Integer(),
  phase: Type.Integer(),
  stopped: Type.Boolean(),
  zeros: Type.Boolean({ description: 'an entry was all zeros: no driver makes such a command' }),
});

/** See `ControllerDiagnosis`. */
export const ControllerSchema = Type.Object({
  socket: Type.String(),
  cntlid: Type.Integer(),
  connectedAt: Type.String({ description: 'ISO 8601' }),
  findings: Type.Array(Type.String(), { description: 'what looks wrong, in sentences' }),
  nvme: Type.Object({
    registers: Type.Record(
      Type.String(),
      Type.Record(Type.String(), Type.Union([Type.String(), Type.Number(), Type.Boolean()])),
      { description: 'each with its value, and what that says' },
    ),
    failure: Optional(Type.String({ description: 'why CSTS.CFS is set' })),
    adminQueue: Optional(AdminQueue),
    asyncEvents: Type.Object({
      requests: Count('that wait for an event'),
      events: Count('that wait for a request'),
    }),
    features: Type.Record(Type.String(), Type.Number(), {
      description: 'that the guest set to something else than their default',
    }),
    lastAdminCommand: Optional(
      Type.Object({
        opcode: Type.String(),
        name: Type.String(),
        cid: Type.Integer(),
        nsid: Type.Integer(),
        cdw10: Type.String(),
        cdw11: Type.String(),
        time: Type.String({ description: 'ISO 8601' }),
        status: Optional(Type.String({ description: 'absent while it is carried out' })),
        statusName: Optional(Type.String()),
      }),
    ),
  }),
  queues: Type.Array(
    Type.Object({
      ...QUEUE,
      inFlight: Count('commands taken and not completed'),
      stopped: Type.Boolean({ description: 'memory under it is unmapped' }),
      phase: Count('phase tag of the next completion'),
    }),
  ),
  dma: Type.Object({
    count: Type.Integer(),
    bytes: Type.Integer(),
    regions: Type.Array(
      Type.Object({ iova: Type.String(), size: Type.Integer(), writable: Type.Boolean() }),
      { description: 'the first ones' },
    ),
  }),
  interrupts: Type.Object({
    mode: Type.Enum(['msix', 'msi', 'intx', 'none']),
    vectors: Type.Array(
      Type.Object({
        vector: Type.Integer(),
        connected: Type.Boolean({ description: 'to an eventfd' }),
        masked: Type.Boolean({ description: 'of INTx; masks of MSI-X are in the VMM' }),
      }),
    ),
  }),
});
