/**
 * NBD servers that stop, die and come back: what was asked of them is a pause, an error of the path, or left behind, and what they may have forgotten is
 * not called durable.
 */
import { rmSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { ClientMemory } from '../../src/client/memory.ts';
import type { NvmeClient } from '../../src/client/nvme.ts';
import type { Completion, QueuePair } from '../../src/client/queue-pair.ts';
import type { PlaneMessage } from '../../src/reactor/control.ts';
import { GetLogPage } from '../../src/spec/admin.ts';
import { Lid } from '../../src/spec/logs.ts';
import { NvmOpcode, RangeDword12 } from '../../src/spec/nvm.ts';
import { Csts, Register } from '../../src/spec/registers.ts';
import { code, doNotRetry } from '../helpers/admin.ts';
import { NbdServer, noNbdkit } from '../helpers/nbd-server.ts';
import { Random } from '../helpers/random.ts';
import { MIB, TestTarget } from '../helpers/target.ts';
import { VerifiedLoad } from '../helpers/verified-load.ts';

const { READ, WRITE, FLUSH } = NvmOpcode;
const FUA = RangeDword12.mask.fua;
const DISK = 16 * MIB;
const PATH_ERROR = '3/00';
const NOT_DURABLE = '2/80';

class Guest {
  readonly client: NvmeClient;
  readonly pair: QueuePair;
  readonly #offset: number;

  static async connect(target: TestTarget, bdev: string): Promise<Guest> {
    const client = await target.connect(await target.serve(bdev));
    return new Guest(client, await client.createQueuePair(1, 64));
  }

  private constructor(client: NvmeClient, pair: QueuePair) {
    this.client = client;
    this.pair = pair;
    this.#offset = client.memory.allocate(4096);
  }

  get data(): Uint8Array {
    return this.client.memory.bytes(this.#offset, 4096);
  }

  execute(opcode: number, lba = 0, cdw12 = 7): Promise<Completion> {
    const prp1 = this.client.memory.iova + this.#offset;
    return this.pair.execute({ opcode, nsid: 1, prp1, cdw10: lba, cdw12: cdw12 >>> 0 });
  }

  /** The status. */
  async run(opcode: number, lba = 0, cdw12 = 7): Promise<string> {
    return code(await this.execute(opcode, lba, cdw12));
  }

  write(value: number, lba = 0, flags = 0): Promise<string> {
    this.data.fill(value);
    return this.run(WRITE, lba, 7 | flags);
  }

  async read(lba = 0): Promise<number> {
    const status = await this.run(READ, lba);
    return status === '0/00' ? this.data[0] : Number.NaN;
  }
}

async function start(t: Test, options: object = {}, ...args: string[]) {
  const server = await NbdServer.nbdkit(t, ...(args.length > 0 ? args : ['memory', `${DISK}`]));
  const target = await TestTarget.start(t);
  const uri = server.uri();
  await target.target.createBdev('nbd', { name: 'n', uri, reconnect_delay: 1, ...options });
  const guest = await Guest.connect(target, 'n');
  const told = (type: string) =>
    target.target.events.since().filter((event) => event.type === type).length;
  return { server, target, guest, told };
}

t.test(
  'a server that stops answers later; who resets does not wait',
  { skip: noNbdkit },
  async (t) => {
    const { server, target, guest } = await start(t, { timeout: 0 });
    const other = await Guest.connect(target, await target.malloc(MIB));
    t.equal(await guest.write(1), '0/00');
    server.freeze();
    const held = guest.execute(WRITE, 100);
    const reads = [200, 208].map((lba) => guest.execute(READ, lba));
    await pause(50);
    for (let i = 0; i < 20; i++) {
      t.equal(await other.write(i), '0/00', 'a neighbour');
    }
    const before = Date.now();
    held.catch(() => {});
    for (const read of reads) {
      read.catch(() => {});
    }
    await guest.client.disable();
    guest.client.close();
    t.ok(Date.now() - before < 1000, 'a reset and a new client do not wait for the server');
    const next = await Guest.connect(target, await target.malloc(MIB));
    t.equal(await next.write(3), '0/00');
    server.thaw();
  },
);

t.test('memory is taken away while a server hangs', { skip: noNbdkit }, async (t) => {
  const { server, guest } = await start(t, { timeout: 0 });
  const { client } = guest;
  const region = new ClientMemory(2 * 4096, 0x4000_0000);
  t.teardown(() => region.close());
  await client.vfio.dmaMap({ iova: region.iova, size: region.size, fd: region.fd });
  server.freeze();
  const commands = [READ, WRITE].map((opcode, i) =>
    guest.pair.execute({ opcode, nsid: 1, prp1: region.iova + i * 4096, cdw10: i * 64, cdw12: 7 }),
  );
  await pause(50);
  const before = Date.now();
  await client.vfio.dmaUnmap(region.iova, region.size);
  t.ok(Date.now() - before < 1000, 'it is answered at once');
  for (const command of commands) {
    t.equal(code(await command), '0/04', 'data transfer error');
  }
  server.thaw();
  t.equal(await guest.write(5, 64), '0/00', 'the blocks are free when the server has answered');
  t.equal(await guest.read(64), 5);
});

t.test(
  'what a server does not answer in time is an error of the path',
  { skip: noNbdkit },
  async (t) => {
    const { server, guest } = await start(t, { timeout: 1 });
    t.equal(await guest.write(1), '0/00');
    server.freeze();
    guest.data.fill(2);
    const [late, other] = await Promise.all([guest.execute(WRITE, 0), guest.execute(READ, 512)]);
    for (const command of [late, other]) {
      t.equal(code(command), PATH_ERROR);
      t.notOk(doNotRetry(command), 'another try may do');
    }
    // The old write may come yet: a new one of its blocks waits for that.
    guest.data.fill(3);
    const next = guest.execute(WRITE, 0);
    await pause(100);
    server.thaw();
    t.equal(code(await next), '0/00');
    t.equal(await guest.read(), 3, 'the newest');
  },
);

t.test(
  'a dead server: commands wait for their time, and then fail',
  { skip: noNbdkit },
  async (t) => {
    const { server, target, guest, told } = await start(t, { timeout: 1, on_reconnect: 'trust' });
    t.equal(await guest.write(1), '0/00');
    await server.kill();
    rmSync(server.socket, { force: true });
    const before = Date.now();
    const failed = await guest.execute(READ);
    t.equal(code(failed), PATH_ERROR);
    t.notOk(doNotRetry(failed));
    const took = Date.now() - before;
    t.ok(took > 900 && took < 5000, `after ${took} ms`);
    t.equal(told('bdev-disconnected'), 1);
    await server.restart();
    const waiting = guest.execute(READ);
    t.equal(code(await waiting), '0/00', 'it is there again');
    t.equal(told('bdev-connected'), 1);
    t.match(target.target.bdevs.get('n').driverSpecific, {
      nbd: { reconnects: 1, connections: 1 },
    });
  },
);

t.test('what a server has forgotten is not called durable', { skip: noNbdkit }, async (t) => {
  const { server, target, guest, told } = await start(t);
  t.equal(await guest.write(1), '0/00');
  t.equal(await guest.run(FLUSH), '0/00');
  await server.restart();
  t.equal(await guest.run(FLUSH), '0/00', 'all was flushed');
  t.equal(await guest.write(2), '0/00');
  await server.restart();
  t.equal(await guest.read(), 0, 'this server keeps nothing');
  for (let i = 0; i < 3; i++) {
    t.equal(await guest.run(FLUSH), NOT_DURABLE);
    t.equal(await guest.write(3, 8), '0/00');
  }
  t.equal(told('write-back-failed'), 1);
  const bdev = target.target.bdevs.get('n');
  t.match(bdev.driverSpecific, { nbd: { flush_fails: true } });
  t.match(bdev.failure, { errno: 5 });
  const health = (await guest.client.adminRead(GetLogPage.fields({ nsid: 0xffff_ffff, lid: Lid.SMART, numdLZ: 127 }), 512))[0]; // biome-ignore format: one call
  t.not(health & 4, 0, 'a critical warning: reliability is degraded');
  await t.rejects(target.target.bdevs.get('n').sync(), { code: 'EIO' });
  await target.target.reopenNbd('n');
  t.equal(await guest.run(FLUSH), '0/00');
});

t.test(
  'with FUA there is nothing to forget, and who trusts is told nothing',
  { skip: noNbdkit },
  async (t) => {
    for (const on_reconnect of ['fua', 'trust']) {
      const { server, guest, told } = await start(t, { on_reconnect });
      t.equal(await guest.write(1), '0/00');
      t.equal(await guest.write(1, 8, FUA), '0/00');
      await server.restart();
      t.equal(await guest.run(FLUSH), '0/00', on_reconnect);
      t.equal(told('write-back-failed'), 0);
    }
  },
);

t.test('an operator gives up a server that hangs', { skip: noNbdkit }, async (t) => {
  const { server, target, guest, told } = await start(t, { timeout: 1 });
  t.equal(await guest.write(1), '0/00');
  server.freeze();
  t.equal(await guest.write(2), PATH_ERROR);
  const next = guest.write(3);
  await server.restart();
  const renewed = target.target.reopenNbd('n');
  t.equal(await next, '0/00', 'the blocks are free');
  await renewed;
  t.equal(await guest.read(), 3);
  t.equal(await guest.run(FLUSH), '0/00');
  // Renewing healthy connections is nobody's loss.
  await target.target.reopenNbd('n');
  t.equal(await guest.write(4), '0/00');
  t.equal(await guest.run(FLUSH), '0/00');
  t.ok(told('write-back-failed') <= 1);
  await target.target.deleteBdev('n', 'nbd');
});

t.test(
  'a reactor that dies: the next one has a connection of its own',
  { skip: noNbdkit },
  async (t) => {
    const { target, guest } = await start(t);
    t.equal(await guest.write(7), '0/00');
    // A reactor that dies in its first second is taken for one that cannot live.
    await pause(1100);
    await t.rejects(target.pool.request(0, undefined as unknown as PlaneMessage), {
      name: 'ReactorLostError',
    });
    const { client } = guest;
    while (((await client.readRegister(Register.offset.csts)) & Csts.mask.cfs) === 0) {
      await pause(5);
    }
    await client.enable();
    const pair = await client.createQueuePair(1, 64);
    const prp1 = client.memory.iova + client.memory.allocate(4096);
    t.equal(code(await pair.execute({ opcode: READ, nsid: 1, prp1, cdw12: 7 })), '0/00');
    t.equal(client.memory.bytes(prp1 - client.memory.iova, 1)[0], 7);
    t.equal(code(await pair.execute({ opcode: FLUSH, nsid: 1 })), '0/00', 'nothing was lost');
  },
);

t.test(
  'a reactor that dies, and none after it uses the bdev: nothing waits for it',
  { skip: noNbdkit },
  async (t) => {
    const { target, guest, told } = await start(t);
    t.equal(await guest.write(7), '0/00');
    t.match(target.target.bdevs.get('n').server, { connections: 1 });
    await pause(1100);
    await t.rejects(target.pool.request(0, undefined as unknown as PlaneMessage), {
      name: 'ReactorLostError',
    });
    t.match(target.target.bdevs.get('n').server, { connections: 0, inFlight: 0 });
    await target.target.reopenNbd('n');
    t.equal(told('write-back-failed'), 0);
    guest.client.close();
    const next = await Guest.connect(target, await target.malloc(MIB));
    t.equal(await next.write(3), '0/00', 'the successor has other disks');
    await target.target.deleteBdev('n', 'nbd');
  },
);

t.test('an export that has shrunk is not used', { skip: noNbdkit }, async (t) => {
  const { server, target, guest, told } = await start(t, { timeout: 2, on_reconnect: 'trust' });
  await server.restart('memory', `${DISK / 2}`);
  t.equal(await guest.run(READ), PATH_ERROR);
  t.ok(told('error') >= 1);
  await server.restart('memory', `${2 * DISK}`);
  t.equal(await guest.run(READ), '0/00', 'a larger one is');
  const bdev = target.target.bdevs.get('n');
  while (bdev.numBlocks !== (2 * DISK) / 512) {
    await pause(10);
  }
  t.equal(await guest.run(READ, DISK / 512), '0/00', 'in its new size');
  await server.restart('memory', `${3 * DISK}`);
  await target.target.rescan('n', 'nbd');
  t.equal(bdev.numBlocks, (3 * DISK) / 512);
});

t.test(
  'verified load, and a server that is killed again and again',
  { skip: noNbdkit },
  async (t) => {
    const target = await TestTarget.start(t, { reactors: 2 });
    const path = target.image(DISK);
    const server = await NbdServer.nbdkit(t, 'file', path);
    const random = new Random();
    t.comment(`SEED=${random.seed}`);
    await target.target.createBdev('nbd', { name: 'n', uri: server.uri(), on_reconnect: 'fua' });
    const client = await target.connect(await target.serve('n'));
    const loads: VerifiedLoad[] = [];
    for (const qid of [1, 2]) {
      const pair = await client.createQueuePair(qid, 64);
      loads.push(
        new VerifiedLoad({
          client,
          pair,
          random,
          depth: 24,
          firstPage: (qid - 1) * 1024,
          pages: 1024,
          interrupts: false,
        }),
      );
    }
    const turn = async () => {
      for (const load of loads) {
        load.turn();
      }
      await new Promise((resolve) => setImmediate(resolve));
    };
    const isIdle = ({ reads, writes }: VerifiedLoad) => reads <= 10 || writes <= 10;
    for (let kills = 0; kills < 8 || loads.some(isIdle); kills++) {
      const restarting = pause(random.below(100)).then(() => server.restart());
      const until = Date.now() + 250;
      let isBack = false;
      restarting.then(
        () => {
          isBack = true;
        },
        () => {
          isBack = true;
        },
      );
      while (!isBack || Date.now() < until) {
        await turn();
      }
      await restarting;
    }
    for (const load of loads) {
      await load.finish(turn);
      t.ok(load.reads > 10 && load.writes > 10, `${load.reads} reads, ${load.writes} writes`);
    }
    t.match(target.target.bdevs.get('n').driverSpecific, {
      nbd: { in_flight: 0, flush_fails: false },
    });
  },
);
