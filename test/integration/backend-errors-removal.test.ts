/** Namespaces and bdevs that go and come while guests use them: every command gets its one answer, and nothing is used after it is gone. */
import assert from 'node:assert/strict';
import { readdirSync, readlinkSync } from 'node:fs';
import { basename } from 'node:path';
import t, { type Test } from 'tap';
import type { NvmeClient } from '../../src/client/nvme.ts';
import type { QueuePair } from '../../src/client/queue-pair.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { Status } from '../../src/spec/nvme.ts';
import { FuseDisk, noFuse } from '../helpers/fuse.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const { READ, WRITE } = NvmOpcode;
const DEPTH = 32;

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Keeps a queue full of reads and writes of a namespace, and counts how they end. */
class Load {
  readonly seen = new Map<number, number>();
  /** Completions of each command id, less one for each time it was submitted. */
  readonly #balance = new Int32Array(DEPTH);
  readonly over: Promise<void>;
  #stopped = false;

  static async start(client: NvmeClient, qid: number, nsid: number): Promise<Load> {
    const pair = await client.createQueuePair(qid, DEPTH + 1);
    for (let cid = 0; cid < DEPTH; cid++) {
      pair.setBuffer(cid, client.memory.iova + client.memory.allocate(4096), 0);
    }
    return new Load(client, pair, nsid);
  }

  private constructor(client: NvmeClient, pair: QueuePair, nsid: number) {
    let connected = true;
    void client.vfio.closed.then(() => {
      connected = false;
    });
    const submit = (cid: number) => {
      this.#balance[cid] -= 1;
      pair.push(cid, cid % 2 === 0 ? READ : WRITE, nsid, 8 * cid, 7);
    };
    const run = async () => {
      for (let cid = 0; cid < DEPTH; cid++) {
        submit(cid);
      }
      pair.ring();
      while (pair.inflight > 0 && connected) {
        const count = pair.poll();
        for (let i = 0; i < count; i++) {
          const cid = pair.doneIds[i];
          const status = pair.doneStatus[i];
          this.#balance[cid] += 1;
          assert.equal(this.#balance[cid], 0, 'one completion a command');
          this.seen.set(status, this.count(status) + 1);
          if (!this.#stopped) {
            submit(cid);
          }
        }
        if (count > 0) {
          pair.ring();
        }
        await turn();
      }
    };
    this.over = run();
  }

  count(status: number): number {
    return this.seen.get(status) ?? 0;
  }

  /** Resolves when so many more commands have ended so. */
  async more(status: number, count: number): Promise<void> {
    const before = this.count(status);
    while (this.count(status) < before + count) {
      await turn();
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.over;
  }
}

const isOpen = (path: string): boolean =>
  readdirSync('/proc/self/fd').some((fd) => {
    try {
      return basename(readlinkSync(`/proc/self/fd/${fd}`)) === basename(path);
    } catch {
      return false;
    }
  });

/** Two guests, two queues each, all on namespace 2; namespace 1 is another disk. */
async function start(t: Test, kind: 'malloc' | 'file') {
  const target = await TestTarget.start(t, { reactors: 2 });
  const path = target.image(MIB);
  const bdev = kind === 'malloc' ? await target.malloc(MIB) : await target.file(path);
  const served = await target.serve(await target.malloc(MIB), bdev);
  const address = { traddr: target.folder, trsvcid: '', adrfam: '' };
  const socket = await target.target.addListener(served.nqn, address);
  const clients = [await target.connect(served), await target.connect({ ...served, socket })];
  const loads: Load[] = [];
  for (const client of clients) {
    loads.push(await Load.start(client, 1, 2), await Load.start(client, 2, 2));
  }
  const others = await Promise.all(clients.map((client) => Load.start(client, 3, 1)));
  return { target, served, path, bdev, clients, loads, others };
}

const { INVALID_NAMESPACE } = Status;

for (const kind of ['malloc', 'file'] as const) {
  t.test(`a namespace on ${kind} goes and comes under load`, async (t) => {
    const { target, served, bdev, loads, others } = await start(t, kind);
    for (let round = 0; round < 10; round++) {
      await Promise.all(loads.map((load) => load.more(0, 50)));
      await target.target.removeNamespace(served.nqn, 2);
      const done = loads.map((load) => load.count(0));
      await Promise.all(loads.map((load) => load.more(INVALID_NAMESPACE, 50)));
      // Some completions were seen only after the removal; each queue can have had that many under way.
      for (const [i, load] of loads.entries()) {
        assert.ok(load.count(0) <= done[i] + DEPTH, 'no command found it after it was gone');
      }
      await target.target.addNamespace(served.nqn, bdev, { nsid: 2 });
    }
    await Promise.all([...loads, ...others].map((load) => load.stop()));
    for (const load of loads) {
      t.strictSame([...load.seen.keys()].sort(), [0, INVALID_NAMESPACE]);
    }
    for (const load of others) {
      t.strictSame([...load.seen.keys()], [0], 'the other namespace is not disturbed');
    }
  });

  t.test(`the bdev ${kind} is deleted under load`, async (t) => {
    const { target, path, bdev, loads, others } = await start(t, kind);
    await Promise.all(loads.map((load) => load.more(0, 100)));
    t.equal(isOpen(path), kind === 'file');
    await target.target.deleteBdev(bdev, kind === 'malloc' ? 'malloc' : 'uring');
    t.notOk(isOpen(path), 'its file is closed');
    await Promise.all(loads.map((load) => load.more(INVALID_NAMESPACE, 100)));
    await Promise.all(others.map((load) => load.more(0, 100)));
    await Promise.all([...loads, ...others].map((load) => load.stop()));
    for (const load of loads) {
      t.strictSame([...load.seen.keys()].sort(), [0, INVALID_NAMESPACE]);
    }
  });
}

t.test('a bdev is deleted while its disk hangs', { skip: noFuse }, async (t) => {
  const disk = await FuseDisk.mount(t, MIB);
  const target = await TestTarget.start(t);
  const bdev = await target.pinning(disk.path);
  const client = await target.connect(await target.serve(bdev, await target.malloc(MIB)));
  const pair = await client.createQueuePair(1, 16);
  const prp1 = client.memory.iova + client.memory.allocate(4096);
  await disk.behave({ hold: true });
  const read = pair.execute({ opcode: READ, nsid: 1, prp1 });
  await disk.held(1);
  let deleted = false;
  const deletion = target.target.deleteBdev(bdev, 'uring').then(() => {
    deleted = true;
  });
  for (let i = 0; i < 100; i++) {
    await client.identifyController();
  }
  t.notOk(deleted, 'a command is still under way');
  t.ok(isOpen(disk.path));
  await disk.behave({});
  await deletion;
  t.strictSame(await read, { status: 0, dw0: 0 }, 'it was completed');
  t.notOk(isOpen(disk.path));
  t.equal((await pair.execute({ opcode: READ, nsid: 1, prp1 })).status, INVALID_NAMESPACE);
  t.equal((await pair.execute({ opcode: READ, nsid: 2, prp1 })).status, 0);
});

t.test('subsystems and listeners go while their guests work', async (t) => {
  const { target, served, loads, others, clients } = await start(t, 'file');
  const all = [...loads, ...others];
  await Promise.all(all.map((load) => load.more(0, 100)));
  await target.target.removeListener(served.nqn, target.folder);
  await clients[1].vfio.closed;
  const left = [loads[0], loads[1], others[0]];
  await Promise.all(left.map((load) => load.more(0, 100)));
  await target.target.deleteSubsystem(served.nqn);
  await clients[0].vfio.closed;
  t.strictSame(target.target.subsystems, []);
  for (const load of all) {
    await load.over;
    t.strictSame([...load.seen.keys()], [0]);
  }
});
