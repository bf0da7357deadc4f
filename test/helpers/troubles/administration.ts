/** What an operator, or the guest itself, does about a disk that hangs: it waits with those who wait, and nobody else does. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { NvmeClient } from '../../../src/client/nvme.ts';
import type { QueuePair } from '../../../src/client/queue-pair.ts';
import { AdminOpcode } from '../../../src/spec/admin.ts';
import { NvmOpcode } from '../../../src/spec/nvm.ts';
import { CQE_SHIFT, SQE_SHIFT } from '../../../src/spec/nvme.ts';
import { Cc, Csts, Register, Shst } from '../../../src/spec/registers.ts';
import { type FuseDisk, noFuse } from '../fuse.ts';
import type { Scene } from '../neighbour/scene.ts';
import type { Served } from '../neighbour/stage.ts';
import type { Trouble } from '../neighbour/trouble.ts';
import { sharedBuffer } from './guest.ts';

const { READ, WRITE, FLUSH } = NvmOpcode;

/** A VM with a disk that hangs, namespace 1, and one that does not, namespace 2; each has a queue pair of its own. */
interface Patient {
  readonly fuse: FuseDisk;
  readonly served: Served;
  readonly client: NvmeClient;
  readonly hung: QueuePair;
  readonly healthy: QueuePair;
  readonly hungBdev: string;
}

type Opcodes = readonly (typeof READ | typeof WRITE | typeof FLUSH)[];

async function patient(scene: Scene, opcodes: Opcodes): Promise<Patient> {
  const fuse = await scene.fuse();
  const hungBdev = await scene.file(fuse.path);
  const served = await scene.serve(hungBdev, await scene.malloc());
  const client = await scene.connect(served, { shadowDoorbells: false });
  const [hung, healthy] = [
    await client.createQueuePair(1, 64),
    await client.createQueuePair(2, 64),
  ];
  sharedBuffer(client, hung, 63);
  await fuse.behave({ hold: true });
  for (let cid = 0; cid < 16; cid++) {
    const opcode = opcodes[cid % opcodes.length];
    hung.push(cid, opcode, 1, opcode === FLUSH ? 0 : 8 * cid, opcode === FLUSH ? 0 : 7);
  }
  hung.ring();
  await fuse.held(1);
  return { fuse, served, client, hung, healthy, hungBdev };
}

async function read({ client, healthy }: Patient, nsid: number): Promise<void> {
  const prp1 = client.memory.iova;
  const { status } = await healthy.execute({ opcode: WRITE, nsid, prp1, cdw12: 7 });
  assert.equal(status, 0, 'the healthy disk of the same VM');
}

/** A second guest takes the first one's place, and has the disk that is healthy. */
async function nextGuest(scene: Scene, { served }: Patient): Promise<void> {
  const client = await scene.connect(served, { shadowDoorbells: false });
  const pair = await client.createQueuePair(1, 16);
  const completion = await pair.execute({
    opcode: READ,
    nsid: 2,
    prp1: client.memory.iova,
    cdw12: 7,
  });
  assert.equal(completion.status, 0, 'the next client');
  client.close();
  await client.vfio.closed;
}

interface Act {
  readonly name: string;
  readonly opcodes?: Opcodes;
  /** Begun while the disk hangs; what it waits for may be the disk. `settled` is told what came of it. */
  readonly begin: (scene: Scene, patient: Patient) => Promise<unknown>;
  /** Whether the VM's other disk works meanwhile (default), and its admin queue. */
  readonly works?: boolean;
  /** `begin` has to end while the disk hangs. */
  readonly ends?: boolean;
}

function act({
  name,
  opcodes = [READ, WRITE, FLUSH],
  begin,
  works = true,
  ends = false,
}: Act): Trouble {
  return {
    name: `${name} while its disk hangs`,
    needs: noFuse,
    async establish(scene) {
      const sick = await patient(scene, opcodes);
      const begun = begin(scene, sick);
      let failure: unknown;
      begun.catch((error) => {
        failure = error;
      });
      if (ends) {
        await begun;
      }
      return {
        held: async () => {
          assert.ok(sick.fuse.heldCount > 0, 'the disk hangs');
          if (works) {
            await read(sick, 2);
            await sick.client.identifyController();
          }
          if (failure !== undefined) {
            throw failure;
          }
        },
        release: async () => {
          await sick.fuse.behave({});
          // Whether it succeeds no longer matters: what it was about may be gone.
          await begun.catch(() => {});
        },
      };
    },
  };
}

/** CC, as a client enables its controller. */
const ENABLED = Cc.encode({ en: true, iosqes: SQE_SHIFT, iocqes: CQE_SHIFT });
const SHUTDOWN = Cc.encode({ shn: 1 });

async function shutDown({ client }: Patient): Promise<void> {
  await client.writeRegister(Register.offset.cc, ENABLED | SHUTDOWN);
  for (;;) {
    const csts = await client.readRegister(Register.offset.csts);
    if (Csts.decode(csts).shst === Shst.COMPLETE) {
      return;
    }
    await sleep(5);
  }
}

const acts: readonly Act[] = [
  {
    name: 'its namespace is removed',
    begin: (scene, { served: { nqn } }) => scene.call('nvmf_subsystem_remove_ns', { nqn, nsid: 1 }),
  },
  {
    name: 'the other namespace is removed and attached again',
    works: false,
    ends: true,
    begin: async (scene, sick) => {
      const { nqn } = sick.served;
      const spare = await scene.malloc();
      await scene.call('nvmf_subsystem_remove_ns', { nqn, nsid: 2 });
      await scene.call('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: spare, nsid: 2 } });
      await read(sick, 2);
    },
  },
  {
    name: 'a namespace is added',
    ends: true,
    begin: async (scene, sick) => {
      const { nqn } = sick.served;
      const bdev_name = await scene.malloc();
      await scene.call('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name, nsid: 3 } });
      await read(sick, 3);
    },
  },
  {
    name: 'its queue is deleted',
    begin: (_, { client }) => client.admin.execute({ opcode: AdminOpcode.DELETE_IO_SQ, cdw10: 1 }),
  },
  {
    name: 'the other queue is deleted and made again',
    works: false,
    ends: true,
    begin: async (_, sick) => {
      await sick.client.deleteQueuePair(2);
      const healthy = await sick.client.createQueuePair(2, 16);
      await read({ ...sick, healthy }, 2);
    },
  },
  {
    name: 'its bdev is deleted',
    begin: (scene, { hungBdev }) =>
      // It is deleted once more at the end, and is then not there any more.
      scene.call('bdev_uring_delete', { name: hungBdev }),
  },
  {
    name: 'its bdev is looked at for a new size',
    begin: (scene, { hungBdev }) => scene.call('bdev_uring_rescan', { name: hungBdev }),
  },
  {
    name: 'memory is taken away',
    begin: (_, { client }) => client.vfio.dmaUnmap(client.memory.iova, client.memory.size),
    works: false,
  },
  {
    name: 'the controller is reset (flushes)',
    opcodes: [FLUSH],
    works: false,
    ends: true,
    begin: async (_, { client }) => {
      await client.disable();
      await client.enable();
    },
  },
  {
    name: 'the controller is reset (reads and writes)',
    opcodes: [READ, WRITE],
    works: false,
    ends: true,
    begin: async (_, { client }) => {
      await client.disable();
      await client.enable();
    },
  },
  {
    // It says that it is shut down when the data is durable, and not before.
    name: 'the controller is shut down',
    works: false,
    begin: (_, sick) => shutDown(sick),
  },
  {
    name: 'the client hangs up, and another comes',
    works: false,
    ends: true,
    begin: async (scene, sick) => {
      sick.client.close();
      await sick.client.vfio.closed;
      await nextGuest(scene, sick);
    },
  },
];

/** Node's own threads for files are four. */
const fourShutdowns: Trouble = {
  name: 'four VMs shut down on disks that hang',
  needs: noFuse,
  async establish(scene) {
    const patients: Patient[] = [];
    for (let i = 0; i < 4; i++) {
      patients.push(await patient(scene, [FLUSH]));
    }
    for (const { client } of patients) {
      await client.writeRegister(Register.offset.cc, ENABLED | SHUTDOWN);
    }
    return {
      held: async () => {
        assert.ok(patients.every(({ fuse }) => fuse.heldCount > 0));
      },
      release: async () => {
        for (const { fuse } of patients) {
          await fuse.behave({});
        }
      },
    };
  },
};

/** JSON-RPC about files of a file system that does not answer, each of which may wait and fail by itself. */
const deadFileSystem: Trouble = {
  name: 'bdevs are made, looked at and deleted on a dead file system',
  needs: noFuse,
  async establish(scene) {
    const fuse = await scene.fuse({ files: 8 });
    const [rescanned, deleted] = [await scene.file(fuse.paths[0]), await scene.file(fuse.paths[1])];
    await fuse.behave({ hold: ['lookup', 'stat', 'open', 'close'], spare: process.pid });
    const calls = [
      scene.call('bdev_uring_rescan', { name: rescanned }),
      scene.call('bdev_uring_delete', { name: deleted }),
      ...[2, 3, 4, 5, 6, 7].map((i) => {
        const name = `${rescanned}-${i}`;
        return scene.call('bdev_uring_create', { name, filename: fuse.paths[i], block_size: 512 });
      }),
    ];
    const settled = Promise.allSettled(calls);
    await fuse.held(1);
    return {
      held: async () => {
        assert.ok(fuse.heldCount > 0);
      },
      release: async () => {
        await fuse.behave({});
        await settled;
        for (const i of [2, 3, 4, 5, 6, 7]) {
          await scene.call('bdev_uring_delete', { name: `${rescanned}-${i}` }).catch(() => {});
        }
      },
    };
  },
};

export const ADMINISTRATION_TROUBLES: readonly Trouble[] = [
  ...acts.map(act),
  fourShutdowns,
  deadFileSystem,
];
