/** Guest memory that is not what it was said to be. */
import { closeSync, ftruncateSync, openSync, rmSync } from 'node:fs';
import { ClientMemory } from '../../../src/client/memory.ts';
import type { NvmeClient } from '../../../src/client/nvme.ts';
import { AdminOpcode, Cns } from '../../../src/spec/admin.ts';
import { NvmOpcode } from '../../../src/spec/nvm.ts';
import { Csts, Register } from '../../../src/spec/registers.ts';
import { noFuse } from '../fuse.ts';
import type { Scene } from '../neighbour/scene.ts';
import type { Trouble } from '../neighbour/trouble.ts';
import { PAGE } from './guest.ts';

const { READ } = NvmOpcode;
const IOVA = 0x100_0000_0000;
const DEPTH = 128;

let files = 0;

/** Shared memory that its owner can shrink. The caller closes it. */
function shrinkable(bytes: number): number {
  files += 1;
  const path = `/dev/shm/doorbell-test-${process.pid}-${files}`;
  const fd = openSync(path, 'w+');
  rmSync(path);
  ftruncateSync(fd, bytes);
  return fd;
}

async function guest(scene: Scene): Promise<NvmeClient> {
  return scene.connect(await scene.serve(await scene.malloc()));
}

/** Requests that are under way at once; each one's reply is awaited. */
async function pipelined(count: number, request: (i: number) => Promise<unknown>): Promise<void> {
  for (let i = 0; i < count; i += 64) {
    const some = Array.from({ length: Math.min(64, count - i) }, (_, j) => request(i + j));
    await Promise.all(some);
  }
}

/** Every other page of so many regions is touched: each fault may split a mapping, of which the kernel allows 65,530. */
function truncated(regions: number): Trouble {
  const pages = 128;
  const bytes = pages * PAGE;
  return {
    name: `${regions} regions of truncated memory`,
    async establish(scene) {
      const client = await guest(scene);
      const pair = await client.createQueuePair(1, DEPTH);
      const fd = shrinkable(regions * bytes);
      await pipelined(regions, (i) =>
        client.vfio.dmaMap({ iova: IOVA + i * bytes, size: bytes, fd, offset: i * bytes }),
      );
      ftruncateSync(fd, 0);
      closeSync(fd);
      let next = 0;
      const total = (regions * pages) / 2;
      const touch = (): void => {
        pair.poll();
        while (pair.inflight < DEPTH - 1) {
          const cid = next % DEPTH;
          pair.setBuffer(cid, IOVA + 2 * PAGE * (next % total), 0);
          pair.push(cid, READ, 1, 0, 7);
          next += 1;
        }
        pair.ring();
      };
      // To the end, or until the controller was taken out of service for it.
      for (let turn = 0; next < total; turn++) {
        touch();
        await new Promise((resolve) => setImmediate(resolve));
        if (
          turn % 64 === 0 &&
          ((await client.readRegister(Register.offset.csts)) & Csts.mask.cfs) !== 0
        ) {
          break;
        }
      }
      return { held: async () => touch(), release: async () => {} };
    },
  };
}

/** Memory whose pages come from a file system that does not answer. */
const fuseBacked: Trouble = {
  name: 'guest memory on a file system that hangs',
  needs: noFuse,
  async establish(scene) {
    const fuse = await scene.fuse({ cached: true });
    const client = await guest(scene);
    const pair = await client.createQueuePair(1, 16);
    const fd = openSync(fuse.path, 'r+');
    await fuse.behave({ hold: true, spare: process.pid });
    const size = 64 * PAGE;
    // Refused, or taken as memory that the target cannot reach by itself.
    await client.vfio.dmaMap({ iova: IOVA, size, fd }).catch(() => {});
    closeSync(fd);
    for (let cid = 0; cid < 8; cid++) {
      pair.setBuffer(cid, IOVA + cid * PAGE, 0);
      pair.push(cid, cid % 2 === 0 ? READ : NvmOpcode.WRITE, 1, 8 * cid, 7);
    }
    pair.ring();
    const identify = {
      opcode: AdminOpcode.IDENTIFY,
      cdw10: Cns.CONTROLLER,
      prp1: IOVA + 32 * PAGE,
    };
    void client.admin.execute(identify).catch(() => {});
    return {
      held: async () => {
        pair.poll();
      },
      release: () => fuse.behave({}),
    };
  },
};

/** As many regions as a client may have, taken away at once and given again. */
const manyRegions: Trouble = {
  name: '8,000 regions are mapped and taken away at once',
  async establish(scene) {
    const client = await guest(scene);
    const regions = 8000;
    const memory = new ClientMemory(2 * PAGE, IOVA);
    scene.defer(() => memory.close());
    const map = (): Promise<void> =>
      pipelined(regions, (i) =>
        client.vfio.dmaMap({
          ...{ iova: IOVA + 2 * PAGE * i, size: PAGE, fd: memory.fd },
          offset: PAGE * (i % 2),
        }),
      );
    await map();
    return {
      held: async () => {
        await client.vfio.dmaUnmapAll();
        await map();
      },
      release: async () => {},
    };
  },
};

export const MEMORY_TROUBLES: readonly Trouble[] = [truncated(700), fuseBacked, manyRegions];
