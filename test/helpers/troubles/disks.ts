/** Disks that hang, fail, are slow or full: of other VMs than the neighbour. */
import assert from 'node:assert/strict';
import type { NvmeClient } from '../../../src/client/nvme.ts';
import type { QueuePair } from '../../../src/client/queue-pair.ts';
import { NvmOpcode } from '../../../src/spec/nvm.ts';
import { type FuseDisk, noFuse } from '../fuse.ts';
import type { Scene } from '../neighbour/scene.ts';
import type { Held, Trouble } from '../neighbour/trouble.ts';
import { assertHeld, completed, sharedBuffer, submit } from './guest.ts';

const { READ, WRITE, FLUSH } = NvmOpcode;

interface Guest {
  readonly client: NvmeClient;
  readonly pair: QueuePair;
  /** Its namespaces: 1, 2, … */
  readonly disks: number;
}

/** Namespaces of a VM. */
const MOST_DISKS = 16;
const DEPTH = 256;

/** A guest with a queue pair for a bdev or several. */
async function guest(scene: Scene, bdevs: readonly string[], depth = DEPTH): Promise<Guest> {
  const client = await scene.connect(await scene.serve(...bdevs));
  const pair = await client.createQueuePair(1, depth);
  sharedBuffer(client, pair, depth - 1);
  return { client, pair, disks: bdevs.length };
}

/** VMs with all files of a file system as disks, 16 each. */
async function fuseGuests(scene: Scene, fuse: FuseDisk): Promise<Guest[]> {
  const bdevs = [];
  for (const path of fuse.paths) {
    bdevs.push(await scene.file(path));
  }
  const guests = [];
  for (let i = 0; i < bdevs.length; i += MOST_DISKS) {
    guests.push(await guest(scene, bdevs.slice(i, i + MOST_DISKS)));
  }
  return guests;
}

/** Commands that each disk is given. */
const EACH = 4;

function hung(
  opcode: (typeof NvmOpcode)[keyof typeof NvmOpcode],
  what: string,
  files: number,
  cached: boolean,
): Trouble {
  const disks = files === 1 ? 'a disk' : `${files} disks`;
  return {
    name: `${what} of ${disks} hang${cached ? ', through the page cache' : ''}`,
    needs: noFuse,
    async establish(scene) {
      const fuse = await scene.fuse({ files, cached });
      const guests = await fuseGuests(scene, fuse);
      await fuse.behave({ hold: true });
      for (const { pair, disks } of guests) {
        for (let nsid = 1; nsid <= disks; nsid++) {
          for (let i = 0; i < EACH; i++) {
            const cid = (nsid - 1) * EACH + i;
            pair.push(cid, opcode, nsid, opcode === FLUSH ? 0 : 8 * i, opcode === FLUSH ? 0 : 7);
          }
        }
        pair.ring();
      }
      await fuse.held(files);
      return {
        held: async () => {
          assert.ok(fuse.heldCount >= files);
          for (const { pair } of guests) {
            assertHeld(pair);
          }
        },
        release: () => fuse.behave({}),
      };
    },
  };
}

/** A command after the other, each of which has to end with this status. */
async function keepsFailing(
  pair: QueuePair,
  opcode: (typeof NvmOpcode)[keyof typeof NvmOpcode],
  status: number,
): Promise<void> {
  const place = { prp1: pair.place.sqIova, cdw10: 0, cdw12: opcode === FLUSH ? 0 : 7 };
  const completion = await pair.execute({ opcode, nsid: 1, ...place });
  assert.equal((completion.status & 0x7ff).toString(16), status.toString(16));
}

const EIO = 5;
const ENOSPC = 28;

/** `status`: of the guest's command. */
function failing(
  name: string,
  opcode: (typeof NvmOpcode)[keyof typeof NvmOpcode],
  errors: { readonly read?: number; readonly write?: number; readonly fsync?: number },
  status: number,
): Trouble {
  return {
    name,
    needs: noFuse,
    async establish(scene) {
      const fuse = await scene.fuse();
      const [{ client }] = await fuseGuests(scene, fuse);
      const pair = await client.createQueuePair(2, 16);
      await fuse.behave(errors);
      const held = () => keepsFailing(pair, opcode, status);
      await held();
      return { held, release: () => fuse.behave({}) };
    },
  };
}

/** Guests with this many commands each that wait in the target. */
async function crowd(
  scene: Scene,
  count: number,
  bdev: () => Promise<string>,
  queues = 3,
): Promise<{ readonly pairs: readonly QueuePair[] }> {
  const pairs: QueuePair[] = [];
  for (let i = 0; i < count; i++) {
    const client = await scene.connect(await scene.serve(await bdev()));
    for (let qid = 1; qid <= queues; qid++) {
      const pair = await client.createQueuePair(qid, DEPTH);
      sharedBuffer(client, pair, DEPTH - 1);
      pairs.push(pair);
    }
  }
  return { pairs };
}

const crowdOfPending: Trouble = {
  name: 'four VMs have 765 commands each on disks that never answer',
  async establish(scene) {
    const { pairs } = await crowd(scene, 4, async () => {
      const name = await scene.error();
      await scene.call('bdev_error_inject_error', {
        ...{ name, io_type: 'read', error_type: 'pending', num: 100_000 },
      });
      return name;
    });
    for (const pair of pairs) {
      submit(pair, READ, 1, DEPTH - 1);
    }
    return { held: async () => pairs.forEach(assertHeld), release: async () => {} };
  },
};

/** Commands keep waiting: what completes is submitted again. */
function refill(pairs: readonly QueuePair[]): Held {
  return {
    held: async () => {
      for (const pair of pairs) {
        const count = pair.poll();
        for (let i = 0; i < count; i++) {
          assert.equal(pair.doneStatus[i], 0);
          pair.push(pair.doneIds[i], READ, 1, 0, 7);
        }
        if (count > 0) {
          pair.ring();
        }
        assert.equal(pair.inflight, DEPTH - 1);
      }
    },
    release: async () => {},
  };
}

const crowdOfLimited: Trouble = {
  name: 'four VMs have 765 commands each above their rate limit',
  async establish(scene) {
    const { pairs } = await crowd(scene, 4, async () => {
      const name = await scene.malloc();
      await scene.call('bdev_set_qos_limit', { name, rw_ios_per_sec: 1000 });
      return name;
    });
    for (const pair of pairs) {
      submit(pair, READ, 1, DEPTH - 1);
    }
    return refill(pairs);
  },
};

const crowdOfSlow: Trouble = {
  name: 'four VMs have 765 commands each on disks that take 100 ms',
  async establish(scene) {
    const { pairs } = await crowd(scene, 4, () => scene.delay(100));
    for (const pair of pairs) {
      submit(pair, READ, 1, DEPTH - 1);
    }
    return refill(pairs);
  },
};

const slowFile: Trouble = {
  name: 'a file system that takes 100 ms for everything',
  needs: noFuse,
  async establish(scene) {
    const fuse = await scene.fuse({ files: 4 });
    await fuse.behave({ delay: 100 });
    const [{ pair }] = await fuseGuests(scene, fuse);
    let next = 0;
    const held = async (): Promise<void> => {
      assert.ok(completed(pair).every((status) => status === 'NVMe status 0/0x0'));
      while (pair.inflight < 64) {
        const opcode = [READ, WRITE, FLUSH][next % 3];
        const transfer = opcode !== FLUSH;
        // Ids are used in turn; those that are free again are not known to be the next, and need not be.
        pair.push(
          next % 255,
          opcode,
          1 + (next % 4),
          transfer ? 8 * (next % 128) : 0,
          transfer ? 7 : 0,
        );
        next += 1;
      }
      pair.ring();
    };
    await held();
    return { held, release: () => fuse.behave({}) };
  },
};

/** Linux puts all namespaces of a controller on each of its queues. */
const oneQueueTwoDisks: Trouble = {
  name: 'one of two disks on one queue hangs',
  needs: noFuse,
  async establish(scene) {
    const fuse = await scene.fuse();
    const bdevs = [await scene.file(fuse.path), await scene.malloc()];
    const { client, pair } = await guest(scene, bdevs);
    await fuse.behave({ hold: true });
    const waiting = 64;
    for (let cid = 0; cid < waiting; cid++) {
      const opcode = [READ, WRITE, FLUSH][cid % 3];
      const transfer = opcode !== FLUSH;
      pair.push(cid, opcode, 1, transfer ? 8 * cid : 0, transfer ? 7 : 0);
    }
    pair.ring();
    await fuse.held(1);
    return {
      // Its other disk goes on, on the same queue; and so does its admin queue.
      held: async () => {
        for (const opcode of [WRITE, READ, FLUSH]) {
          pair.push(waiting, opcode, 2, 0, opcode === FLUSH ? 0 : 7);
          pair.ring();
          while (pair.poll() === 0) {
            await new Promise((resolve) => setTimeout(resolve, 1));
          }
          assert.deepEqual([pair.doneIds[0], pair.doneStatus[0]], [waiting, 0]);
        }
        await client.identifyController();
        assert.ok(fuse.heldCount > 0);
      },
      release: () => fuse.behave({}),
    };
  },
};

const deadServer: Trouble = {
  name: 'the server of a file system dies while commands wait',
  needs: noFuse,
  async establish(scene) {
    const fuse = await scene.fuse({ files: 4 });
    const [{ pair }] = await fuseGuests(scene, fuse);
    await fuse.behave({ hold: true });
    submit(pair, READ, 1, 16);
    await fuse.held(1);
    fuse.die();
    while (pair.inflight > 0) {
      assert.ok(completed(pair).every((status) => status !== 'NVMe status 0/0x0'));
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    return { held: () => keepsFailing(pair, READ, 0x281), release: async () => {} };
  },
};

export const DISK_TROUBLES: readonly Trouble[] = [
  ...[1, 8, 16, 63].flatMap((files) => [
    hung(READ, 'reads', files, false),
    hung(WRITE, 'writes', files, false),
    hung(FLUSH, 'flushes', files, false),
  ]),
  hung(READ, 'reads', 8, true),
  oneQueueTwoDisks,
  crowdOfPending,
  crowdOfLimited,
  crowdOfSlow,
  slowFile,
  deadServer,
  failing('reads fail', READ, { read: EIO }, 0x281),
  failing('writes fail', WRITE, { write: EIO }, 0x280),
  failing('flushes fail', FLUSH, { fsync: EIO }, 0x280),
  failing('a disk is full', WRITE, { write: ENOSPC }, 0x081),
];
