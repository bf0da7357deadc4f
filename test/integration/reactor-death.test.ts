/** A reactor that dies: its controllers say so, the host resets them, and goes on where it was; others never notice. */
import t, { type Test } from 'tap';
import type { NvmeClient } from '../../src/client/nvme.ts';
import { succeeded } from '../../src/client/nvme.ts';
import type { QueuePair } from '../../src/client/queue-pair.ts';
import type { PlaneMessage } from '../../src/reactor/control.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { Csts, Register } from '../../src/spec/registers.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

/** A message that is none: the reactor throws, which is what a bug in it would do. */
async function killReactor(t: Test, target: TestTarget, reactor: number): Promise<void> {
  // A reactor that dies in its first second is taken for one that cannot live.
  await new Promise((resolve) => setTimeout(resolve, 1100));
  await t.rejects(target.pool.request(reactor, undefined as unknown as PlaneMessage), {
    name: 'ReactorLostError',
  });
}

async function transfer(
  client: NvmeClient,
  pair: QueuePair,
  opcode: number,
  lba: number,
  offset: number,
): Promise<void> {
  const prp1 = client.memory.iova + offset;
  succeeded(await pair.execute({ opcode, nsid: 1, prp1, cdw10: lba, cdw12: 7 }));
}

async function failed(client: NvmeClient): Promise<void> {
  for (;;) {
    if (((await client.readRegister(Register.offset.csts)) & Csts.mask.cfs) !== 0) {
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

for (const kind of ['file', 'malloc'] as const) {
  t.test(`${kind}: what was written is there after the reactor died`, async (t) => {
    const target = await TestTarget.start(t);
    const bdev = kind === 'file' ? await target.file(target.image(MIB)) : await target.malloc(MIB);
    const client = await target.connect(await target.serve(bdev));
    const pair = await client.createQueuePair(1, 32);
    const buffer = client.memory.allocate(4096);
    for (let round = 0; round < 2; round++) {
      client.memory.bytes(buffer, 4096).fill(0x40 + round);
      const queue = round === 0 ? pair : await client.createQueuePair(1, 32);
      await transfer(client, queue, NvmOpcode.WRITE, 8 * round, buffer);
      await killReactor(t, target, 0);
      await failed(client);
      t.pass('the host can see it');
      await client.enable();
    }
    const again = await client.createQueuePair(1, 32);
    for (let round = 0; round < 2; round++) {
      client.memory.bytes(buffer, 4096).fill(0);
      await transfer(client, again, NvmOpcode.READ, 8 * round, buffer);
      t.ok(client.memory.bytes(buffer, 4096).every((byte) => byte === 0x40 + round));
    }
  });
}

t.test('a controller with nothing on the dead reactor goes on', async (t) => {
  const target = await TestTarget.start(t, { reactors: 2 });
  const served = [
    await target.serve(await target.malloc(MIB)),
    await target.serve(await target.malloc(MIB)),
  ];
  const clients = await Promise.all(served.map((where) => target.connect(where)));
  // One queue each; the pool spreads them.
  const pairs = [];
  for (const client of clients) {
    pairs.push(await client.createQueuePair(1, 32));
  }
  const reactorOf = (nqn: string): number =>
    [...target.target.subsystem(nqn).listeners.values()][0].endpoint.controller!.qpairs[0].reactor;
  const [first, second] = served.map(({ nqn }) => reactorOf(nqn));
  t.not(first, second, 'on two reactors');
  await killReactor(t, target, first);
  await failed(clients[0]);
  const buffer = clients[1].memory.allocate(4096);
  await transfer(clients[1], pairs[1], NvmOpcode.WRITE, 0, buffer);
  t.equal((await clients[1].readRegister(Register.offset.csts)) & Csts.mask.cfs, 0);
  t.ok(await clients[1].identifyController(), 'its admin queue, too');
  await clients[0].enable();
  t.ok(await clients[0].createQueuePair(1, 32), 'the other comes back');
});
