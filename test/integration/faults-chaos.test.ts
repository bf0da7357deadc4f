/**
 * Commands that are delayed, pending, retried, failed and corrupted, while queues, memory, namespaces and clients come and go at random, and queues
 * move between reactors: each ends exactly once, with a status that there is a reason for, nothing hangs, and the neighbour has its data right.
 */
import assert from 'node:assert/strict';
import t, { type Test } from 'tap';
import { INJECTED_ERRORS, type InjectedError } from '../../src/bdev/injections.ts';
import { Op } from '../../src/bdev/op.ts';
import { DelayBdev, ErrorBdev } from '../../src/bdev/wrapper.ts';
import { ClientMemory } from '../../src/client/memory.ts';
import type { NvmeClient } from '../../src/client/nvme.ts';
import type { Completion, QueuePair } from '../../src/client/queue-pair.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { code } from '../helpers/admin.ts';
import { Random } from '../helpers/random.ts';
import { MIB, type Served, TestTarget } from '../helpers/target.ts';

const { READ, WRITE, FLUSH } = NvmOpcode;
const OPS = [Op.READ, Op.WRITE, Op.FLUSH];
const ERRORS = Object.keys(INJECTED_ERRORS) as InjectedError[];
const PAGE = 4096;
const STEPS = 250;
const DEPTH = 200;
const EXTRA = 0x4000_0000;
const HOUR = 3_600_000_000;
/** Fine; failed; aborted; aborted with its queue; its namespace is gone; its memory is gone; what is injected. */
const STATUSES = ['0/00', '0/06', '0/07', '0/08', '0/0b', '0/04', '2/81'];
/** How a move may end. */
const MOVES = [
  'moved',
  'Device or resource busy: the guest changes its queues',
  'Device or resource busy: completion queue N is being moved',
  'Device or resource busy: commands of completion queue N do not end',
  "key 'cqid': there is no completion queue N",
  'there is no controller: no client is connected',
];
/**
 * Of a flush: a write past the page cache and one through it (as one that is split around a corrupted byte) were at the same blocks at the same
 * time, and the kernel does not know what is there.
 */
const COLLISION = '2/80';

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

class Guest {
  readonly #target: TestTarget;
  readonly #served: Served;
  readonly #random: Random;
  #client: NvmeClient;
  #pairs: QueuePair[] = [];
  #buffer = 0;
  #extra: ClientMemory | undefined;
  #mapped = false;
  readonly #moves: Promise<string>[] = [];
  readonly statuses = new Map<string, number>();
  submitted = 0;
  ended = 0;
  /** Commands whose queue went, as nobody tells how. */
  dropped = 0;

  static async start(target: TestTarget, served: Served, random: Random): Promise<Guest> {
    const guest = new Guest(target, served, random, await target.connect(served));
    await guest.#settleIn();
    return guest;
  }

  private constructor(target: TestTarget, served: Served, random: Random, client: NvmeClient) {
    this.#target = target;
    this.#served = served;
    this.#random = random;
    this.#client = client;
  }

  /** To a controller that is new. */
  async #settleIn(): Promise<void> {
    const { memory } = this.#client;
    this.#buffer = memory.iova + memory.allocate(PAGE);
    await this.#makeQueues();
  }

  async #makeQueues(): Promise<void> {
    this.#pairs = [
      await this.#client.createQueuePair(1, DEPTH),
      await this.#client.createQueuePair(2, DEPTH),
    ];
  }

  /** More commands, into memory that stays or that may go. */
  submit(count: number): void {
    const random = this.#random;
    for (let i = 0; i < count; i++) {
      const pair = this.#pairs[random.below(2)];
      if (pair.inflight >= DEPTH - 1) {
        continue;
      }
      const prp1 = this.#mapped && random.below(2) === 0 ? EXTRA : this.#buffer;
      const opcode = [READ, READ, WRITE, FLUSH][random.below(4)];
      const cdw10 = 8 * random.below(64);
      this.submitted += 1;
      pair.execute({ opcode, nsid: 1, prp1, cdw10, cdw12: 7 }).then(
        (completion) => this.#count(completion),
        () => {
          this.dropped += 1;
        },
      );
    }
  }

  #count(completion: Completion): void {
    const status = code(completion);
    this.ended += 1;
    this.statuses.set(status, (this.statuses.get(status) ?? 0) + 1);
  }

  /** All that was submitted has ended: by its own, or with its queue. */
  async settle(): Promise<void> {
    while (this.ended + this.dropped < this.submitted) {
      await turn();
    }
  }

  async mapExtra(): Promise<void> {
    if (this.#mapped) {
      this.#mapped = false;
      await this.#client.vfio.dmaUnmap(EXTRA, PAGE);
      return;
    }
    this.#extra ??= new ClientMemory(PAGE, EXTRA);
    await this.#client.vfio.dmaMap({ iova: EXTRA, size: PAGE, fd: this.#extra.fd });
    this.#mapped = true;
  }

  /** Commands that were taken complete, aborted if need be, before it is gone; the others are dropped (NVMe Base 2.0 §5.6). */
  async replaceQueue(): Promise<void> {
    const index = this.#random.below(2);
    await this.#client.deleteQueuePair(index + 1);
    this.#pairs[index].abandon();
    this.#pairs[index] = await this.#client.createQueuePair(index + 1, DEPTH);
  }

  /** Moves a queue, sooner or later: what else happens need not wait. Commands that hang keep it where it is. */
  move(): void {
    const [{ endpoint }] = this.#target.target.subsystem(this.#served.nqn).listeners.values();
    const moved = endpoint.moveQueue(1 + this.#random.below(2), this.#random.below(2));
    this.#moves.push(
      moved.then(
        () => 'moved',
        (error: Error) => error.message.replace(/[0-9]+/, 'N'),
      ),
    );
  }

  /** How the moves ended, and how often. */
  async moves(): Promise<Record<string, number>> {
    const counts: Record<string, number> = {};
    for (const outcome of await Promise.all(this.#moves)) {
      counts[outcome] = (counts[outcome] ?? 0) + 1;
    }
    return counts;
  }

  async reset(): Promise<void> {
    await this.#client.disable();
    this.#pairs.forEach((pair) => void pair.abandon());
    await this.#client.enable();
    await this.#makeQueues();
  }

  async reconnect(): Promise<void> {
    this.#client.close();
    await this.#client.vfio.closed;
    this.#pairs.forEach((pair) => void pair.abandon());
    this.#extra?.close();
    this.#extra = undefined;
    this.#mapped = false;
    this.#client = await this.#target.connect(this.#served);
    await this.#settleIn();
  }

  close(): void {
    this.#extra?.close();
  }
}

/** The other VM, whose disk nothing is injected into. */
async function neighbour(target: TestTarget): Promise<() => Promise<void>> {
  const client = await target.connect(await target.serve(await target.malloc(MIB)));
  const pair = await client.createQueuePair(1, 8);
  const offset = client.memory.allocate(PAGE);
  const bytes = client.memory.bytes(offset, PAGE);
  const run = async (opcode: number): Promise<void> => {
    const prp1 = client.memory.iova + offset;
    assert.equal(code(await pair.execute({ opcode, nsid: 1, prp1, cdw12: 7 })), '0/00');
  };
  let value = 0;
  return async () => {
    value = (value + 1) & 0xff;
    bytes.fill(value);
    await run(WRITE);
    bytes.fill(0);
    await run(READ);
    assert.ok(bytes.every((byte) => byte === value));
  };
}

async function chaos(
  t: Test,
  make: (target: TestTarget) => Promise<string>,
  statuses = STATUSES,
): Promise<void> {
  const random = new Random();
  t.comment(`SEED=${random.seed}`);
  const target = await TestTarget.start(t, { reactors: 2 });
  const base = await make(target);
  const latencies = { avg_read: 0, p99_read: HOUR, avg_write: 300, p99_write: 2000 };
  await target.target.createDelay({ name: 'slow' }, base, latencies);
  const { name } = await target.target.createError('slow');
  const bad = target.target.bdevs.get(name);
  const slow = target.target.bdevs.get('slow');
  assert.ok(bad instanceof ErrorBdev && slow instanceof DelayBdev);
  const served = await target.serve(name);
  const checkNeighbour = await neighbour(target);
  const guest = await Guest.start(target, served, random);
  t.teardown(() => guest.close());

  const steps: (() => Promise<void> | void)[] = [
    () => guest.mapExtra(),
    () => guest.replaceQueue(),
    () => guest.reset(),
    () => guest.reconnect(),
    async () => {
      await target.target.removeNamespace(served.nqn, 1);
      guest.submit(10);
      await target.target.addNamespace(served.nqn, name, { nsid: 1 });
    },
    () => target.target.limit(name, { rwIos: random.below(2) * 20_000 }),
    () => slow.setLatency('avg_read', [0, 50, 1000, HOUR][random.below(4)]),
    () => slow.setLatency('avg_write', [0, 50, 1000, HOUR][random.below(4)]),
    () => bad.clear(),
  ];
  for (let step = 0; step < STEPS; step++) {
    guest.submit(random.below(60));
    if (random.below(2) === 0) {
      bad.inject(OPS[random.below(3)], {
        error: ERRORS[random.below(ERRORS.length)],
        count: [1, 10, 2 ** 32 - 1][random.below(3)],
        status: 0x281,
        queueDepth: random.below(3) * 5,
        corruptOffset: random.below(PAGE),
        corruptValue: 1 + random.below(255),
      });
    }
    if (random.below(3) === 0) {
      guest.move();
    }
    if (random.below(4) === 0) {
      await steps[random.below(steps.length)]();
    } else {
      await turn();
    }
    if (step % 25 === 0) {
      await checkNeighbour();
    }
  }
  bad.clear();
  await target.target.deleteBdev('slow', 'delay');
  await guest.settle();
  assert.equal(target.target.bdevs.find(name), undefined);
  t.comment(`${guest.submitted} commands, ${guest.dropped} of them dropped`);
  t.comment(JSON.stringify(Object.fromEntries(guest.statuses)));
  const moves = await guest.moves();
  t.comment(JSON.stringify(moves));
  const unexpected = Object.keys(moves).filter((outcome) => !MOVES.includes(outcome));
  t.strictSame(unexpected, []);
  t.ok(moves.moved > 0);
  const strange = [...guest.statuses.keys()].filter((status) => !statuses.includes(status));
  t.strictSame(strange, []);
  t.equal(guest.ended + guest.dropped, guest.submitted);
  await checkNeighbour();
  for (let reactor = 0; reactor < 2; reactor++) {
    t.ok(target.pool.state(reactor).alive);
  }
}

t.test('a bdev in memory', (t) => chaos(t, (target) => target.malloc(MIB)));
t.test('a file', (t) => chaos(t, (target) => target.file(target.image(MIB))));
t.test('a file with O_DIRECT', (t) =>
  chaos(t, (target) => target.file(target.image(MIB), { direct: true }), [...STATUSES, COLLISION]),
);
