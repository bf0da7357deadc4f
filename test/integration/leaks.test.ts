/** A thousand guests come, work and go: the target has afterwards what it had before. */
import assert from 'node:assert/strict';
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { NvmeClient } from '../../src/client/nvme.ts';
import { MAX_OWNER_CALLS } from '../../src/limits.ts';
import { native } from '../../src/native/index.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { MIB } from '../helpers/target.ts';
import { TargetProcess, type Usage } from '../helpers/target-process.ts';

const GUESTS = 1000;
/** Buffers and compiled code have grown to what they will be. */
const WARM_UP = 400;
const SAMPLE_EVERY = 20;
/** Mappings that are given up wait to be collected, so their number goes up and down. A leak would be one a guest at least. */
const UNCOLLECTED = 128;
/** Threads that close a socket's descriptors come and go. */
const CLOSING = MAX_OWNER_CALLS;

/** Every fourth leaves in the middle of its work, every fourth without a word to the controller. */
async function guest(socket: string, number: number): Promise<void> {
  const interrupts = number % 8 === 0;
  const client = await NvmeClient.connect(socket, { memoryBytes: MIB, interrupts });
  const extra = client.memory.allocate(4096);
  // A second region, which queue memory could lie in; sometimes it is given back.
  const region = { iova: 0x1000, size: 0x2000, fd: client.memory.fd };
  await client.vfio.dmaMap(region);
  for (const qid of [1, 2]) {
    const pair = await client.createQueuePair(qid, 16);
    const prp1 = client.memory.iova + extra;
    for (const nsid of [1, 2]) {
      for (const opcode of [NvmOpcode.WRITE, NvmOpcode.FLUSH, NvmOpcode.READ]) {
        const { status } = await pair.execute({ opcode, nsid, prp1, cdw10: number, cdw12: 7 });
        assert.equal(status, 0);
      }
    }
    if (number % 4 === 1) {
      pair.setBuffer(0, prp1, 0);
      for (let i = 0; i < 10; i++) {
        pair.push(0, NvmOpcode.WRITE, 1 + (i % 2), i, 7);
      }
      pair.ring();
    }
  }
  if (number % 4 === 2) {
    await client.deleteQueuePair(1);
    await client.vfio.dmaUnmap(region.iova, region.size);
    await client.disable();
  }
  client.close();
}

const most = (samples: readonly Usage[], key: keyof Usage) =>
  Math.max(...samples.map((usage) => usage[key]));

t.test(`${GUESTS} guests`, { timeout: 600_000 }, async (t) => {
  const target = new TargetProcess(t);
  await target.start();
  const filename = join(target.folder, 'disk.img');
  writeFileSync(filename, '');
  truncateSync(filename, 4 * MIB);
  await target.call('bdev_malloc_create', { name: 'M', num_blocks: 8192, block_size: 512 });
  await target.call('bdev_uring_create', { name: 'F', filename });
  const socket = await target.serve('F', 'M');
  const before: Usage[] = [];
  const after: Usage[] = [];
  for (let number = 0; number < GUESTS; number++) {
    await guest(socket, number);
    if (number >= WARM_UP && number % SAMPLE_EVERY === 0) {
      (number < (WARM_UP + GUESTS) / 2 ? before : after).push(target.usage());
    }
    native.reclaim();
  }
  const last = await NvmeClient.connect(socket, { memoryBytes: MIB });
  t.equal((await last.identifyController()).vid, 0x4e58, 'it still serves');
  last.close();
  const show = (name: string, samples: Usage[]) =>
    t.comment(
      `${name}: at most ${most(samples, 'fds')} descriptors, ${most(samples, 'maps')} mappings, ` +
        `${Math.round(most(samples, 'resident') / MIB)} MiB`,
    );
  show(`guests ${WARM_UP} to ${(WARM_UP + GUESTS) / 2}`, before);
  show(`guests up to ${GUESTS}`, after);
  t.ok(most(after, 'fds') <= most(before, 'fds') + 4, 'descriptors');
  t.ok(most(after, 'maps') <= most(before, 'maps') + UNCOLLECTED, 'mappings');
  t.ok(most(after, 'resident') <= most(before, 'resident') + 12 * MIB, 'memory');
  t.ok(most(after, 'threads') <= most(before, 'threads') + CLOSING, 'threads');
});
