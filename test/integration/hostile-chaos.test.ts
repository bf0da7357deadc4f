/**
 * A guest and its VMM gone mad: doorbells, queues, registers, memory and vfio-user commands at random, all at once. The target lives, finds
 * no bug of its own to complain of, and serves the neighbour and the next guest.
 */
import assert from 'node:assert/strict';
import { closeSync, readdirSync } from 'node:fs';
import { pino } from 'pino';
import t, { type Test } from 'tap';
import { ClientMemory } from '../../src/client/memory.ts';
import { NvmeClient } from '../../src/client/nvme.ts';
import type { QueuePair } from '../../src/client/queue-pair.ts';
import { native } from '../../src/native/index.ts';
import { AdminOpcode } from '../../src/spec/admin.ts';
import { Fid } from '../../src/spec/features.ts';
import { CQE_SIZE, SQE_SIZE, Sqe } from '../../src/spec/nvme.ts';
import { Cc, Register } from '../../src/spec/registers.ts';
import { PciIrq, PciRegion } from '../../src/spec/vfio-user.ts';
import type { TransportOptions } from '../../src/target/types.ts';
import { neighbour } from '../helpers/integrity.ts';
import { createPair, type Room, room, writeDoorbell } from '../helpers/queues.ts';
import { Random } from '../helpers/random.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const PAGE = 4096;
/** All but what outlasts a guest, as it is meant to: then the next would not find its disks as they were. */
const LASTING: readonly number[] = [AdminOpcode.FORMAT_NVM, AdminOpcode.SANITIZE];
const OPCODES = Object.values(AdminOpcode).filter((opcode) => !LASTING.includes(opcode));
const FIDS = Object.values(Fid).filter((fid) => fid !== Fid.NAMESPACE_WRITE_PROTECTION);
/** Times that the controller is brought back to its senses, and random steps after each. */
const LIVES = 8;
const STEPS = 500;
const IOVA = 0x4000_0000;
/** Of 512 queue pairs, of which 65 mean something. */
const DOORBELLS = 1024;

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

const SHAPES = [
  { qid: 1, depth: 64 },
  { qid: 2, depth: 2 },
  { qid: 3, depth: 1000 },
  { qid: 64, depth: 16 },
];

class Madman {
  readonly #client: NvmeClient;
  readonly #rooms: readonly { readonly sq: Room; readonly cq: Room }[];
  /** Shadow doorbells and event indexes, where the doorbells cannot be mapped. */
  readonly #shadow: Room;
  #pairs: QueuePair[] = [];
  readonly #random: Random;
  readonly #eventfds: readonly number[];
  /** Extra regions, side by side, mapped or not. */
  readonly #extra: readonly ClientMemory[];
  /** Requests that were answered, with success or not; and those that were not yet. */
  answered = 0;
  pending = 0;

  constructor(client: NvmeClient, random: Random) {
    this.#client = client;
    this.#random = random;
    this.#eventfds = Array.from({ length: 8 }, () => native.eventfdCreate());
    this.#extra = Array.from(
      { length: 8 },
      (_, i) => new ClientMemory(2 * PAGE, IOVA + 2 * PAGE * i),
    );
    this.#shadow = room(client.memory, 2 * PAGE);
    this.#rooms = SHAPES.map(({ depth }) => ({
      sq: room(client.memory, depth * SQE_SIZE),
      cq: room(client.memory, depth * CQE_SIZE),
    }));
  }

  /** A controller with queues, as a sane driver would have it. */
  async recover(): Promise<void> {
    while (this.pending > 0) {
      await turn();
    }
    await this.#client.enable();
    this.#pairs = [this.#client.admin];
    for (const [i, shape] of SHAPES.entries()) {
      this.#pairs.push(await createPair(this.#client, { ...shape, ...this.#rooms[i] }));
    }
    if (this.#client.admin.place.doorbells === undefined) {
      const prp1 = this.#shadow.iova;
      const opcode = AdminOpcode.DOORBELL_BUFFER_CONFIG;
      const { status } = await this.#client.admin.execute({ opcode, prp1, prp2: prp1 + PAGE });
      assert.equal(status, 0);
    }
  }

  close(): void {
    for (const fd of this.#eventfds) {
      closeSync(fd);
    }
    for (const memory of this.#extra) {
      memory.close();
    }
  }

  #address(): number {
    const random = this.#random;
    const { memory } = this.#client;
    const page = memory.iova + PAGE * random.below(memory.size / PAGE);
    return random.pick([
      page,
      page,
      page + random.below(PAGE),
      IOVA + PAGE * random.below(18),
      random.pick(this.#pairs).place.sqIova,
      random.pick(this.#pairs).place.cqIova,
      memory.iova + memory.size - PAGE,
      0,
      2 ** 53,
      2 ** 64 - PAGE,
    ]);
  }

  step(): void {
    const random = this.#random;
    const steps = [
      () => this.#ring(),
      () => this.#ring(),
      () => this.#ring(),
      () => this.#submit(),
      () => this.#submit(),
      () => this.#admin(),
      () => this.#admin(),
      () => this.#scribble(),
      () => this.#message(),
    ];
    random.pick(steps)();
  }

  /** Doorbells of all kinds: mapped, shadowed, as messages. */
  #ring(): void {
    const random = this.#random;
    const { doorbells } = this.#client.admin.place;
    const pair = random.pick(this.#pairs).place;
    const index = random.chance(0.8) ? 2 * pair.qid + random.below(2) : random.below(DOORBELLS);
    const value = random.pick([
      random.below(pair.depth),
      random.below(pair.depth),
      random.below(pair.depth),
      pair.depth,
      pair.depth - 1,
      0xffff,
      0x1_0000 + random.below(pair.depth),
      -1,
      random.bits(),
    ]);
    if (doorbells !== undefined) {
      Atomics.store(doorbells, index, value);
      return;
    }
    if (random.chance(0.8)) {
      Atomics.store(this.#shadow.words, index, value);
    }
    if (random.chance(0.5)) {
      writeDoorbell(this.#client, index, value);
    }
  }

  /** An I/O command with any buffer, the queues themselves among them. */
  #submit(): void {
    const random = this.#random;
    const { sq, depth } = random.pick(this.#pairs).place;
    Sqe.write(new DataView(sq.buffer, sq.byteOffset, sq.byteLength), 64 * random.below(depth), {
      cdw0: random.below(3) | (random.below(0x1_0000) << 16),
      nsid: 1 + random.below(3),
      prp1: this.#address(),
      prp2: this.#address(),
      cdw10: random.below(4096),
      cdw11: 0,
      cdw12: random.size(2048) - 1,
    });
  }

  /** An admin command of a kind that there is, with any parameters. */
  #admin(): void {
    const random = this.#random;
    const { sq, depth } = this.#client.admin.place;
    const opcode = random.pick(OPCODES);
    const fields = random.pick([
      { cdw10: random.bits(), cdw11: random.bits() },
      { cdw10: random.below(70) | (random.below(100) << 16), cdw11: 3 | (random.below(70) << 16) },
      { cdw10: random.pick(FIDS), cdw11: random.bits() },
      { cdw10: random.below(9), cdw11: 0 },
    ]);
    Sqe.write(new DataView(sq.buffer, sq.byteOffset, sq.byteLength), 64 * random.below(depth), {
      cdw0: opcode | (random.below(0x1_0000) << 16),
      nsid: random.pick([0, 1, 2, 0xffff_ffff]),
      prp1: this.#address(),
      prp2: this.#address(),
      cdw12: random.chance(0.5) ? 0 : random.bits(),
      ...fields,
    });
  }

  /** Noise in all that the device may read: queues, lists, data. */
  #scribble(): void {
    const random = this.#random;
    const { memory } = this.#client;
    const words = new Int32Array(memory.buffer);
    const at = random.below(words.length - 1024);
    for (let i = random.below(1024); i >= 0; i--) {
      words[at + i] = random.bits();
    }
  }

  /** A vfio-user command: a good one at a bad time, or a bad one. */
  #message(): void {
    const random = this.#random;
    const { vfio } = this.#client;
    const region = random.pick([PciRegion.BAR0, PciRegion.BAR4, PciRegion.CONFIG, 7, 20]);
    const data = random.fill(new Uint8Array(random.pick([1, 2, 4, 8, random.below(64)])));
    const extra = random.pick(this.#extra);
    const fds = this.#eventfds.slice(0, 1 + random.below(8));
    const command = random.pick([
      () => vfio.regionWrite(region, random.below(0x1100), data),
      () => vfio.regionWrite(PciRegion.BAR0, 0x1000 + 4 * random.below(140), data),
      () => vfio.regionRead(region, random.below(0x5000), random.below(5000)),
      () => this.#client.writeRegister(4 * random.below(32), random.bits()),
      () => this.#client.writeRegister(Register.offset.cc, random.pick([0, Cc.mask.en, 0x46_0001])),
      () => this.#client.writeRegister(Register.offset.aqa, random.below(64) * 0x1_0001),
      () => this.#client.writeRegister(Register.offset.asq, PAGE * random.below(1000)),
      () => this.#client.writeRegister(Register.offset.acq + 4, 1),
      () => vfio.dmaMap({ iova: extra.iova, size: extra.size, fd: extra.fd }),
      () => vfio.dmaMap({ iova: extra.iova, size: extra.size, fd: extra.fd, writable: false }),
      () => vfio.dmaMap({ iova: PAGE * random.bits(), size: extra.size, fd: extra.fd }),
      () => vfio.dmaUnmap(extra.iova, extra.size),
      () => vfio.connectIrqs(PciIrq.MSIX, random.below(70), fds),
      () => vfio.connectIrqs(PciIrq.INTX, 0, fds.slice(0, 1)),
      () => vfio.setIrqs(random.below(6), random.below(64), random.below(3), random.below(3)),
      () => vfio.disableIrqs(random.below(6)),
      () => (random.chance(0.1) ? vfio.reset() : Promise.resolve()),
    ]);
    this.pending += 1;
    const settled = () => {
      this.pending -= 1;
      this.answered += 1;
    };
    command().then(settled, settled);
  }
}

for (const [name, transport] of [
  ['mapped doorbells', {}],
  ['shadow doorbells', { disableMappableBar0: true, shadowDoorbells: true }],
] as const) {
  t.test(`everything at random, ${name}`, { timeout: 600_000 }, (t) => goMad(t, transport));
}

async function goMad(t: Test, transport: Partial<TransportOptions>): Promise<void> {
  const random = new Random();
  t.comment(`SEED=${random.seed}`);
  const complaints: string[] = [];
  const log = pino({ level: 'error' }, { write: (line: string) => complaints.push(line) });
  const target = await TestTarget.start(t, { reactors: 2, log, transport });
  const stopNeighbour = await neighbour(target);
  const bdevs = [await target.malloc(2 * MIB), await target.file(target.image(2 * MIB))];
  const served = await target.serve(...bdevs);
  const fds = () => readdirSync('/proc/self/fd').length;
  const before = fds();
  for (let guest = 0; guest < 3; guest++) {
    const client = await NvmeClient.connect(served.socket, { memoryBytes: MIB });
    const madman = new Madman(client, random);
    for (let life = 0; life < LIVES; life++) {
      await madman.recover();
      for (let step = 0; step < STEPS; step++) {
        madman.step();
        do {
          await turn();
        } while (madman.pending >= 8);
      }
    }
    t.ok(madman.answered > 100, `${madman.answered} requests were answered`);
    client.close();
    await client.vfio.closed;
    madman.close();
    const next = await NvmeClient.connect(served.socket);
    const { vid } = await next.identifyController();
    t.equal(vid, 0x4e58, 'the next guest is served');
    const pair = await next.createQueuePair(1, 16);
    const prp1 = next.memory.iova + next.memory.allocate(PAGE);
    for (const nsid of [1, 2]) {
      for (const opcode of [0, 1, 2]) {
        const { status } = await pair.execute({ opcode, nsid, prp1, cdw12: 7 });
        assert.equal(status, 0);
      }
    }
    next.close();
    await next.vfio.closed;
  }
  await stopNeighbour();
  t.pass('the neighbour had every byte as it should be');
  t.strictSame(complaints, [], 'no bug was found');
  // The last guest is being cleaned up after: the next one is let in when that is done.
  const last = await NvmeClient.connect(served.socket);
  t.ok(fds() <= before + 16, `${before} descriptors before, ${fds()} with a guest`);
  last.close();
}
