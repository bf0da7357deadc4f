/** Guests, VMMs and clients that ask for more than their share. */
import { request as httpRequest } from 'node:http';
import { connect, type Socket } from 'node:net';
import type { NvmeClient } from '../../../src/client/nvme.ts';
import type { QueuePair } from '../../../src/client/queue-pair.ts';
import { AdminOpcode } from '../../../src/spec/admin.ts';
import { Fid } from '../../../src/spec/features.ts';
import { NvmOpcode } from '../../../src/spec/nvm.ts';
import { PciCommand, PciHeader } from '../../../src/spec/pci.ts';
import { Register } from '../../../src/spec/registers.ts';
import {
  IrqSet,
  IrqSetAction,
  IrqSetData,
  PciIrq,
  PciRegion,
  VfioUserCommand,
} from '../../../src/spec/vfio-user.ts';
import type { Scene } from '../neighbour/scene.ts';
import type { Held, Trouble } from '../neighbour/trouble.ts';
import { createPair, writeDoorbell } from '../queues.ts';
import { Random } from '../random.ts';
import { PAGE, sharedBuffer, submit } from './guest.ts';

const { READ } = NvmOpcode;
/** Messages that are sent at once, and how often that is before the answer to the first is awaited: the target is never without. */
const BURST = 500;
const BURSTS = 4;

async function guest(scene: Scene): Promise<NvmeClient> {
  return scene.connect(await scene.serve(await scene.malloc()));
}

function word(value: number, bytes: 2 | 4 = 4): Uint8Array {
  const data = new Uint8Array(bytes);
  const view = new DataView(data.buffer);
  if (bytes === 2) {
    view.setUint16(0, value, true);
  } else {
    view.setUint32(0, value >>> 0, true);
  }
  return data;
}

const endless = (held: () => Promise<void>): Held => ({ held, release: async () => {} });

/** Messages without a reply, `post`ed in bursts, from a guest with `queues` queues that all have an interrupt pending. */
function posted(name: string, post: (client: NvmeClient, i: number) => void, queues = 32): Trouble {
  return {
    name,
    async establish(scene) {
      const served = await scene.serve(await scene.malloc());
      const client = await scene.connect(served, { interrupts: true });
      for (let qid = 1; qid <= queues; qid++) {
        const pair = await createPair(client, { qid, depth: 4, vector: qid, interrupts: true });
        sharedBuffer(client, pair, 1);
        submit(pair, READ, 1, 1);
      }
      const held = bursts(client, (i) => post(client, i));
      await held();
      return endless(held);
    },
  };
}

/** A burst of messages for each call, the next ones before the first is through. */
function bursts(client: NvmeClient, post: (i: number) => void): () => Promise<void> {
  const answers: Promise<unknown>[] = [];
  return async () => {
    for (let i = 0; i < BURST; i++) {
      post(i);
    }
    const answer = client.readRegister(Register.offset.csts);
    // Unless it was removed meanwhile.
    answer.catch(() => {});
    answers.push(answer);
    if (answers.length === BURSTS) {
      await answers.shift();
    }
  };
}

const write = (client: NvmeClient, offset: number, value: number): void =>
  client.vfio.regionWritePosted(PciRegion.BAR0, offset, word(value));

const interruptMask = posted('INTMS and INTMC written without end', (client, i) =>
  write(client, i % 2 === 0 ? Register.offset.intms : Register.offset.intmc, 0xffff_ffff),
);

const { MEMORY, BUS_MASTER, INTX_DISABLE } = PciCommand;
const pciCommand = posted('the PCI command register written without end', (client, i) => {
  const value = MEMORY | BUS_MASTER | (i % 2 === 0 ? INTX_DISABLE : 0);
  client.vfio.regionWritePosted(PciRegion.CONFIG, PciHeader.offset.command, word(value, 2));
});

const busMaster = posted('bus mastering turned off and on without end', (client, i) => {
  const value = MEMORY | (i % 2 === 0 ? 0 : BUS_MASTER);
  client.vfio.regionWritePosted(PciRegion.CONFIG, PciHeader.offset.command, word(value, 2));
});

const setIrqs = posted('interrupts masked, unmasked and triggered without end', (client, i) => {
  const [index, action, count] = (
    [
      [PciIrq.INTX, IrqSetAction.MASK, 1],
      [PciIrq.INTX, IrqSetAction.UNMASK, 1],
      [PciIrq.MSIX, IrqSetAction.TRIGGER, 33],
    ] as const
  )[i % 3];
  const flags = IrqSetData.NONE | action;
  const payload = IrqSet.encode({ argsz: IrqSet.size, flags, index, start: 0, count });
  client.vfio.post(VfioUserCommand.DEVICE_SET_IRQS, payload);
});

const adminCommands: Trouble = {
  name: 'admin commands without end',
  async establish(scene) {
    const served = await scene.serve(await scene.malloc());
    const client = await scene.connect(served, { adminDepth: 1024 });
    const fields = { opcode: AdminOpcode.GET_FEATURES, cdw10: Fid.NUMBER_OF_QUEUES };
    const logPage = client.memory.iova + client.memory.allocate(PAGE);
    const log = { opcode: AdminOpcode.GET_LOG_PAGE, prp1: logPage, nsid: 0xffff_ffff };
    const held = async (): Promise<void> => {
      const some = Array.from({ length: 1000 }, (_, i) =>
        client.admin.execute(i % 2 === 0 ? fields : { ...log, cdw10: 2 | (127 << 16) }),
      );
      await Promise.all(some);
    };
    await held();
    return endless(held);
  },
};

const fullQueues: Trouble = {
  name: '64 queues of one guest are kept full',
  async establish(scene) {
    const served = await scene.serve(await scene.malloc());
    const client = await scene.connect(served, { memoryBytes: 8 * 1024 * 1024 });
    const depth = 256;
    const pairs: QueuePair[] = [];
    for (let qid = 1; qid <= 64; qid++) {
      const pair = await client.createQueuePair(qid, depth);
      sharedBuffer(client, pair, depth - 1);
      submit(pair, READ, 1, depth - 1 - (qid % 2));
      pairs.push(pair);
    }
    return endless(async () => {
      for (let turn = 0; turn < 20; turn++) {
        for (const pair of pairs) {
          const count = pair.poll();
          for (let i = 0; i < count; i++) {
            pair.push(pair.doneIds[i], READ, 1, 0, 7);
          }
          if (count > 0) {
            pair.ring();
          }
        }
      }
    });
  },
};

const doorbellNonsense: Trouble = {
  name: 'doorbells with nonsense in them',
  async establish(scene) {
    const random = new Random();
    const client = await guest(scene);
    await client.createQueuePair(1, 64);
    const { doorbells } = client.admin.place;
    const held = bursts(client, () => {
      // The admin queue is left alone, since the controller is asked for its state.
      const index = 2 + random.below(200);
      const value = random.pick([random.below(64), 64, 0xffff, random.bits()]);
      if (doorbells === undefined) {
        writeDoorbell(client, index, value);
      } else {
        Atomics.store(doorbells, index, value);
      }
    });
    await held();
    return endless(held);
  },
};

const resets: Trouble = {
  name: 'the controller is reset without end, with commands in flight',
  async establish(scene) {
    const bdevs = [await scene.malloc(), await scene.file(scene.image())];
    const client = await scene.connect(await scene.serve(...bdevs), {
      memoryBytes: 4 * 1024 * 1024,
      shadowDoorbells: false,
    });
    const rooms = [1, 2, 3, 4].map((qid) => ({ qid, depth: 64 }));
    const made: QueuePair[] = [];
    const held = async (): Promise<void> => {
      await client.enable();
      for (const [i, shape] of rooms.entries()) {
        const old = made[i]?.place;
        const memory = old && {
          sq: { iova: old.sqIova, words: old.sq },
          cq: { iova: old.cqIova, words: old.cq },
        };
        const pair = await createPair(client, { ...shape, ...memory });
        const prp1 = pair.place.sqIova;
        for (let cid = 0; cid < 63; cid++) {
          pair.setBuffer(cid, prp1, 0);
        }
        submit(pair, READ, 1 + (i % 2), 63);
        made[i] = pair;
      }
    };
    await held();
    return endless(held);
  },
};

const attachments: Trouble = {
  name: 'a namespace is attached and detached without end',
  async establish(scene) {
    const [first, second] = [await scene.malloc(), await scene.malloc()];
    const served = await scene.serve(first);
    const client = await scene.connect(served);
    const pair = await client.createQueuePair(1, 64);
    sharedBuffer(client, pair, 63);
    const { nqn } = served;
    const held = async (): Promise<void> => {
      for (let i = 0; i < 5; i++) {
        await scene.call('nvmf_subsystem_add_ns', {
          nqn,
          namespace: { bdev_name: second, nsid: 2 },
        });
        pair.poll();
        for (let cid = pair.inflight; cid < 60; cid++) {
          pair.push(cid, READ, 1 + (cid % 2), 0, 7);
        }
        pair.ring();
        await scene.call('nvmf_subsystem_remove_ns', { nqn, nsid: 2 });
      }
    };
    await held();
    return endless(held);
  },
};

/** Connections that send these bytes and read no answer, and end with the trouble. */
async function silent(scene: Scene, path: string, count: number, data = ''): Promise<Socket[]> {
  const sockets: Socket[] = [];
  for (let i = 0; i < count; i++) {
    const socket = connect({ path });
    socket.on('error', () => {});
    await new Promise((resolve) => {
      socket.once('connect', resolve);
      socket.once('close', resolve);
    });
    if (data !== '') {
      socket.write(data);
    }
    scene.defer(() => socket.destroy());
    sockets.push(socket);
  }
  return sockets;
}

const silentRpc: Trouble = {
  name: 'as many JSON-RPC clients as there may be say nothing',
  async establish(scene) {
    await silent(scene, scene.target.rpcPath, 80);
    return endless(async () => {});
  },
};

const rpcFlood: Trouble = {
  name: 'JSON-RPC requests without end',
  async establish(scene) {
    const line = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'nvmf_get_subsystems' });
    await silent(scene, scene.target.rpcPath, 16, `${line}\n`.repeat(1000));
    return endless(async () => {
      const calls = Array.from({ length: 32 }, (_, i) =>
        scene.call(i % 2 === 0 ? 'bdev_get_bdevs' : 'bdev_get_iostat'),
      );
      await Promise.all(calls);
    });
  },
};

const silentHttp: Trouble = {
  name: 'as many HTTP clients as there may be say nothing',
  async establish(scene) {
    const { hostname, port } = new URL(await scene.target.httpUrl());
    for (let i = 0; i < 160; i++) {
      const socket = connect({ host: hostname, port: Number(port) });
      socket.on('error', () => {});
      scene.defer(() => socket.destroy());
    }
    return endless(async () => {
      const status = await new Promise((resolve, reject) => {
        const request = httpRequest(
          { hostname, port, path: '/healthz', agent: false },
          (answer) => {
            answer.resume();
            resolve(answer.statusCode);
          },
        );
        request.on('error', reject);
        request.end();
      });
      if (status !== 200) {
        throw new Error(`/healthz: ${status}`);
      }
    });
  },
};

export const FLOOD_TROUBLES: readonly Trouble[] = [
  interruptMask,
  pciCommand,
  busMaster,
  setIrqs,
  adminCommands,
  fullQueues,
  doorbellNonsense,
  resets,
  attachments,
  silentRpc,
  rpcFlood,
  silentHttp,
];
