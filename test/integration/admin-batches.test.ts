/**
 * The admin queue under hosts that send batches, with queues of all sizes: each command is completed once, whenever the host consumes
 * completions and however it rings. The target is a process of its own, so that the two sides run at the same time.
 */
import assert from 'node:assert/strict';
import t, { type Test } from 'tap';
import { NvmeClient } from '../../src/client/nvme.ts';
import { AdminOpcode } from '../../src/spec/admin.ts';
import { Fid } from '../../src/spec/features.ts';
import { AdminHost } from '../helpers/admin-host.ts';
import { Random } from '../helpers/random.ts';
import { TargetProcess } from '../helpers/target-process.ts';

/** Entries of SQ and CQ. */
const SIZES = [
  [64, 2],
  [2, 2],
  [2, 64],
  [64, 3],
  [33, 5],
  [7, 19],
] as const;
const COMMANDS = 1500;
/** Nothing was completed for so long: it never will be. */
const STALL_MS = 10_000;

const ABORT = { opcode: AdminOpcode.ABORT, cdw10: 0x1234_0000 };
const KINDS = [
  { opcode: AdminOpcode.GET_FEATURES, cdw10: Fid.NUMBER_OF_QUEUES },
  { opcode: AdminOpcode.KEEP_ALIVE },
  ABORT,
  // These wait for a reactor.
  { opcode: AdminOpcode.SET_FEATURES, cdw10: Fid.VOLATILE_WRITE_CACHE, cdw11: 1 },
  { opcode: AdminOpcode.DELETE_IO_SQ, cdw10: 5 },
];

/** Sends commands in batches of random size, and takes their completions, sometimes after a pause. */
async function exchange(host: AdminHost, sqSize: number, random: Random): Promise<void> {
  const under = new Set<number>();
  let sent = 0;
  let last = Date.now();
  while (sent < COMMANDS || under.size > 0) {
    if (sent < COMMANDS && (under.size === 0 || random.chance(0.2))) {
      const free = sqSize - 1 - under.size;
      for (let n = free === 0 ? 0 : random.below(free) + 1; n > 0; n--) {
        under.add(host.push(random.pick(KINDS)));
        sent += 1;
        if (random.chance(0.1)) {
          host.ring();
        }
      }
      host.ring();
    }
    const taken = host.take(random.size(8));
    for (const { cid } of taken) {
      assert.ok(under.delete(cid), `command ${cid} was completed, and is not under way`);
      last = Date.now();
    }
    assert.ok(
      Date.now() - last < STALL_MS,
      `${under.size} commands wait after ${sent} were sent: ${[...under].slice(0, 5)}`,
    );
    if (taken.length === 0 || random.chance(0.05)) {
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

for (const [way, options] of [
  ['mapped', {}],
  ['trapped', { disable_mappable_bar0: true, disable_shadow_doorbells: true }],
  ['shadow', { disable_mappable_bar0: true }],
] as const) {
  t.test(`${way} doorbells`, async (t: Test) => {
    const random = new Random();
    t.comment(`SEED=${random.seed}`);
    const target = new TargetProcess(t);
    target.transport = options;
    await target.start();
    await target.call('bdev_malloc_create', { name: 'm', block_size: 512, num_blocks: 2048 });
    const client = await NvmeClient.connect(await target.serve('m'), { enable: false });
    t.teardown(() => client.close());
    t.equal(client.admin.place.doorbells !== undefined, way === 'mapped');
    for (const [sqSize, cqSize] of SIZES) {
      const host = new AdminHost(client, sqSize, cqSize);
      await host.enable();
      if (way === 'shadow') {
        await host.configureShadow();
      }
      await exchange(host, sqSize, random);
      t.pass(`${sqSize} and ${cqSize} entries`);
    }
  });
}
