/** After a failed write-back nothing is called durable any more, whoever asks. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { FileDescriptor } from '../../src/bdev/file.ts';
import { WriteBack } from '../../src/bdev/write-back.ts';
import { NvmeClient } from '../../src/client/nvme.ts';
import type { QueuePair } from '../../src/client/queue-pair.ts';
import { native } from '../../src/native/index.ts';
import { callRpc } from '../../src/rpc/client.ts';
import { Fid } from '../../src/spec/features.ts';
import { NvmOpcode, RangeDword12 } from '../../src/spec/nvm.ts';
import { Cc, Csts, Register, Shst } from '../../src/spec/registers.ts';
import { createLogger } from '../../src/util/log.ts';
import { AdminCaller, code } from '../helpers/admin.ts';
import { FuseDisk, noFuse } from '../helpers/fuse.ts';
import { shortFolder } from '../helpers/rpc.ts';
import { Doorbell } from '../helpers/rpc-process.ts';
import { MIB, TestTarget, type TestTargetOptions } from '../helpers/target.ts';

const { READ, WRITE, FLUSH, WRITE_ZEROES, VERIFY } = NvmOpcode;
const [EINTR, EIO, EAGAIN, ENOSPC, EDQUOT] = [4, 5, 11, 28, 122];
const FUA = (7 | RangeDword12.mask.fua) >>> 0;
const DNR = 0x4000;
/** Write fault, and no other try. */
const LOST = '2/80 for good';

function outcomeOf({ status }: { status: number }): string {
  return `${code({ status })}${(status & DNR) !== 0 && status !== 0 ? ' for good' : ''}`;
}

class Guest {
  readonly client: NvmeClient;
  readonly pairs: readonly QueuePair[];
  readonly #prp1: number;

  static async connect(target: TestTarget, socket: { nqn: string; socket: string }, queues = 2) {
    return Guest.of(await target.connect(socket), queues);
  }

  static async of(client: NvmeClient, queues: number) {
    const pairs: QueuePair[] = [];
    for (let qid = 1; qid <= queues; qid++) {
      pairs.push(await client.createQueuePair(qid, 16));
    }
    return new Guest(client, pairs);
  }

  private constructor(client: NvmeClient, pairs: readonly QueuePair[]) {
    this.client = client;
    this.pairs = pairs;
    this.#prp1 = client.memory.iova + client.memory.allocate(4096);
  }

  async run(opcode: number, { queue = 0, nsid = 1, cdw12 = 7 } = {}): Promise<string> {
    const command = { opcode, nsid, prp1: this.#prp1, cdw10: 16, cdw12 };
    return outcomeOf(await this.pairs[queue].execute(command));
  }
}

async function start(t: Test, options: TestTargetOptions = {}) {
  const disk = await FuseDisk.mount(t, 4 * MIB);
  const target = await TestTarget.start(t, { reactors: 2, ...options });
  const bdev = await target.file(disk.path);
  const served = await target.serve(bdev);
  return { disk, target, bdev, served };
}

t.test(
  'no queue, guest or bdev on the file is told of success again',
  { skip: noFuse },
  async (t) => {
    const { disk, target, bdev, served } = await start(t);
    const twin = await target.file(disk.path);
    const base = await target.file(disk.path);
    await target.target.createDelay({ name: 'slow' }, base, {
      avg_read: 0,
      p99_read: 0,
      avg_write: 0,
      p99_write: 0,
    });
    await target.target.createError(twin);
    const healthy = await target.malloc(MIB);
    const others = await target.serve(`EE_${twin}`, 'slow', healthy);
    const one = await Guest.connect(target, served);
    // Another guest of the same namespace.
    await target.target.addListener(served.nqn, {
      traddr: target.folder,
      trsvcid: '',
      adrfam: 'unknown',
    });
    const two = await Guest.connect(target, { ...served, socket: `${target.folder}/cntrl` });
    const three = await Guest.connect(target, others);
    for (const guest of [one, two, three]) {
      t.equal(await guest.run(FLUSH), '0/00');
    }
    t.equal(await one.run(WRITE), '0/00');

    await disk.behave({ fsync: EIO });
    t.equal(await one.run(FLUSH), LOST);
    await disk.behave({});
    const everyone = async () => {
      const outcomes: string[] = [];
      for (const [guest, nsid] of [
        [one, 1],
        [two, 1],
        [three, 1],
        [three, 2],
      ] as const) {
        for (const queue of [0, 1]) {
          outcomes.push(await guest.run(FLUSH, { queue, nsid }));
          outcomes.push(await guest.run(WRITE, { queue, nsid, cdw12: FUA }));
          outcomes.push(await guest.run(WRITE_ZEROES, { queue, nsid, cdw12: FUA }));
          t.equal(await guest.run(WRITE_ZEROES, { queue, nsid }), '0/00');
          t.equal(await guest.run(VERIFY, { queue, nsid }), '0/00');
          t.equal(await guest.run(READ, { queue, nsid }), '0/00', 'it can be read');
          t.equal(await guest.run(READ, { queue, nsid, cdw12: FUA }), '0/00');
          t.equal(await guest.run(WRITE, { queue, nsid }), '0/00', 'and written: into the cache');
        }
      }
      return outcomes;
    };
    t.strictSame(await everyone(), Array(24).fill(LOST), 'though the disk is well again');
    t.equal(await three.run(FLUSH, { nsid: 3 }), '0/00', 'another disk');
    t.equal(await three.run(WRITE, { nsid: 3, cdw12: FUA }), '0/00');

    const admin = new AdminCaller(two.client);
    await admin.setFeature(Fid.VOLATILE_WRITE_CACHE, 0);
    t.equal(await two.run(WRITE), LOST, 'without a cache each write would be durable');
    await admin.setFeature(Fid.VOLATILE_WRITE_CACHE, 1);
    t.equal(await two.run(WRITE), '0/00');

    for (const name of [bdev, twin, base, `EE_${twin}`, 'slow']) {
      await t.rejects(target.target.bdevs.get(name).sync(), { code: 'EIO' }, `main, ${name}`);
    }
    await one.client.disable();
    await one.client.enable();
    const pair = await one.client.createQueuePair(1, 16);
    t.equal(outcomeOf(await pair.execute({ opcode: FLUSH, nsid: 1 })), LOST, 'after a reset');
    const anew = await Guest.connect(target, await target.serve(await target.file(disk.path)));
    t.equal(await anew.run(FLUSH), LOST, 'a bdev made later');
  },
);

for (const errno of [EIO, ENOSPC, EDQUOT]) {
  t.test(`a sync, and a write with FUA, fail with errno ${errno}`, { skip: noFuse }, async (t) => {
    for (const cdw12 of [undefined, FUA]) {
      const { disk, target, served } = await start(t);
      const guest = await Guest.connect(target, served);
      await disk.behave({ fsync: errno });
      const first = await guest.run(cdw12 === undefined ? FLUSH : WRITE, { cdw12: cdw12 ?? 0 });
      t.not(first, '0/00');
      await disk.behave({});
      t.equal(await guest.run(FLUSH), LOST);
      t.equal(await guest.run(FLUSH, { queue: 1 }), LOST);
    }
  });
}

t.test('what is no failed write-back', { skip: noFuse }, async (t) => {
  const { disk, target, served } = await start(t);
  const guest = await Guest.connect(target, served);
  for (const errno of [EINTR, EAGAIN]) {
    await disk.behave({ fsync: errno });
    const flush = guest.run(FLUSH);
    await sleep(20);
    await disk.behave({});
    t.equal(await flush, '0/00');
  }
  for (const errno of [EIO, ENOSPC]) {
    await disk.behave({ write: errno });
    t.not(await guest.run(WRITE), '0/00', 'the guest knows which write it was');
    await disk.behave({});
    t.equal(await guest.run(FLUSH), '0/00');
  }
});

for (const [opcode, cdw12] of [
  [FLUSH, 0],
  [WRITE, FUA],
] as const) {
  t.test(`${opcode} began before the failure and ends after it`, { skip: noFuse }, async (t) => {
    const { disk, target, bdev, served } = await start(t);
    const guest = await Guest.connect(target, served);
    await disk.behave({ hold: true });
    const outcome = guest.run(opcode, { cdw12 });
    await disk.held(1);
    // What another reactor has just been told.
    const backend = target.target.bdevs.get(bdev).backend as FileDescriptor;
    new WriteBack(backend.writeBack).fail(EIO);
    await disk.behave({});
    t.equal(await outcome, LOST);
    t.equal(await guest.run(FLUSH), LOST);
  });
}

t.test('main finds it', { skip: noFuse }, async (t) => {
  const { disk, target, bdev, served } = await start(t);
  const guest = await Guest.connect(target, served);
  await disk.behave({ fsync: EIO });
  const { cc, csts } = Register.offset;
  const enabled = await guest.client.readRegister(cc);
  await guest.client.writeRegister(cc, enabled | Cc.encode({ shn: 1 }));
  while (
    ((await guest.client.readRegister(csts)) & Csts.mask.shst) !==
    Csts.encode({ shst: Shst.COMPLETE })
  ) {
    await sleep(5);
  }
  t.match(target.target.bdevs.get(bdev).failure, { errno: EIO }, 'as a guest shuts down');
  await disk.behave({});
  const other = await Guest.connect(target, await target.serve(await target.file(disk.path)));
  t.equal(await other.run(FLUSH), LOST);
});

t.test('it is told: an event and a line of the log for each bdev', { skip: noFuse }, async (t) => {
  const lines: Record<string, unknown>[] = [];
  const sink = (line: string): boolean => lines.push(JSON.parse(line)) > 0;
  const { log } = createLogger({ level: 'error', format: 'json', sink });
  const { disk, target, bdev, served } = await start(t, { log });
  const twin = await target.file(disk.path);
  const { events, bdevs } = target.target;
  const told = () => events.since().filter(({ type }) => type === 'write-back-failed');
  const guest = await Guest.connect(target, served);
  await disk.behave({ fsync: EIO });
  t.equal(await guest.run(FLUSH), LOST);
  // Nobody asks main.
  while (told().length === 0) {
    await sleep(5);
  }
  t.equal(await guest.run(FLUSH), LOST);
  t.equal(await guest.run(FLUSH), LOST);
  t.match(told(), [
    {
      bdev,
      message: /^write-back to .*disk failed: EIO \(Input\/output error\); no flush succeeds/,
    },
    { bdev: twin },
  ]);
  const logged = () => lines.filter(({ msg }) => /^write-back failed/.test(String(msg)));
  t.match(logged(), [
    { level: 50, component: 'bdev', bdev, path: disk.path, reason: 'EIO', since: String },
    { bdev: twin },
  ]);
  t.match(bdevs.get(bdev).driverSpecific, {
    uring: { write_back_failed: true, write_back_error: 'EIO' },
  });
  const later = await target.file(disk.path);
  t.match(told().at(-1), { bdev: later }, 'a bdev that is made of such a file');
  t.equal(logged().length, 3);
  await disk.behave({});
});

function descriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

/** Native threads close what is no longer needed, so a little later nothing more is open than before. Runs into the test's time limit otherwise. */
async function backToDescriptors(before: number): Promise<void> {
  while (descriptors() !== before) {
    await sleep(5);
  }
}

t.test('reopened, it is a disk again', { skip: noFuse }, async (t) => {
  const { disk, target, bdev, served } = await start(t);
  const twin = await target.file(disk.path);
  await target.target.createError(twin);
  const guest = await Guest.connect(target, served);
  const other = await Guest.connect(target, await target.serve(`EE_${twin}`));
  const before = descriptors();
  await disk.behave({ fsync: EIO });
  t.equal(await guest.run(FLUSH), LOST);
  await t.rejects(target.target.reopen(bdev, 'uring'), { code: 'EIO' }, 'the disk is not well yet');
  await backToDescriptors(before);
  await disk.behave({});
  t.equal(await guest.run(FLUSH), LOST);
  t.equal(await other.run(FLUSH), LOST);
  const { backend } = target.target.bdevs.get(bdev);

  await target.target.reopen(bdev, 'uring');
  for (const queue of [0, 1]) {
    t.equal(await guest.run(FLUSH, { queue }), '0/00');
    t.equal(await other.run(FLUSH, { queue }), '0/00', 'the other bdev of the file, too');
    t.equal(await other.run(WRITE, { queue, cdw12: FUA }), '0/00');
  }
  await target.target.bdevs.get(bdev).sync();
  t.equal(target.target.failedFiles.list().length, 0);
  await backToDescriptors(before);
  const reopened = target.target.events.since().filter(({ type }) => type === 'bdev-reopened');
  t.match(reopened, [{ bdev }, { bdev: twin }]);
  t.ok(new WriteBack((backend as FileDescriptor).writeBack).failed, 'what was, was');

  await disk.behave({ fsync: ENOSPC });
  t.equal(await other.run(FLUSH), LOST, 'and it can fail again');
  t.equal(await guest.run(FLUSH), LOST);
  await t.rejects(target.target.reopen(await target.malloc(MIB), 'uring'), { code: 'ENODEV' });
});

t.test('with a state folder a restart changes nothing', { skip: noFuse }, async (t) => {
  const disk = await FuseDisk.mount(t, 4 * MIB);
  const folder = shortFolder(t);
  const socket = join(folder, 'rpc');
  const args = [
    ...['serve', '--disk', disk.path, '--socket-dir', folder, '--rpc-socket', socket],
    ...['--state-dir', join(folder, 'state'), '--cores', String(native.getAffinity().at(-1))],
  ];
  /** Until the end of `work`. */
  const run = async (work: (guest: Guest) => Promise<unknown>, signal: NodeJS.Signals) => {
    const running = new Doorbell(args);
    t.teardown(() => running.child.kill('SIGKILL'));
    await running.printed(/user-device.*\n/);
    const client = await NvmeClient.connect(join(folder, 'cntrl'));
    await work(await Guest.of(client, 1));
    client.close();
    running.child.kill(signal);
    await running.outcome;
  };
  await run(async () => {}, 'SIGTERM');
  // Main finds it when the target ends.
  await run(() => disk.behave({ fsync: EIO }), 'SIGTERM');
  await disk.behave({});
  await run(async (guest) => t.equal(await guest.run(FLUSH), LOST), 'SIGKILL');
  await run(async (guest) => {
    t.equal(await guest.run(FLUSH), LOST);
    t.match(await callRpc(socket, 'bdev_get_bdevs', {}), [
      { driver_specific: { uring: { write_back_failed: true, write_back_error: 'EIO' } } },
    ]);
    await callRpc(socket, 'bdev_uring_reopen', { name: 'disk1' });
    t.equal(await guest.run(FLUSH), '0/00');
  }, 'SIGTERM');
  await run(async (guest) => {
    t.equal(await guest.run(FLUSH), '0/00');
    // A reactor finds it.
    await disk.behave({ fsync: EIO });
    t.equal(await guest.run(FLUSH), LOST);
    await disk.behave({});
    while (!readFileSync(join(folder, 'state', 'write-back.json'), 'utf8').includes('errno')) {
      await sleep(5);
    }
  }, 'SIGKILL');
  await run(async (guest) => t.equal(await guest.run(FLUSH), LOST), 'SIGTERM');
});
