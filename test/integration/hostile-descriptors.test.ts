/**
 * A VMM sends descriptors whose close fails, or waits for ever: files of a file system of its own. Whatever message they come with, and
 * whether it wants them or not, the target goes on for everyone else.
 */
import { closeSync, openSync } from 'node:fs';
import t, { type Test } from 'tap';
import { native } from '../../src/native/index.ts';
import { FuseDisk, noFuse } from '../helpers/fuse.ts';
import { TargetProcess as Target, type TargetProcess } from '../helpers/target-process.ts';
import { Caller, RawPeer, raw, words } from '../helpers/vfio.ts';

const EIO = 5;
const VERSION = Buffer.concat([words([2, 0], [2, 0]), Buffer.from('{}\0')]);
const NOTHING = new Uint8Array(0);
const GET_INFO = words([4, 16], [4, 0], [4, 0], [4, 0]);
const DMA_MAP = words([4, 32], [4, 3], [8, 0], [8, 0x10000], [8, 0x1000]);
/** EVENTFD and TRIGGER of MSI-X, and EVENTFD and UNMASK of INTx. */
const CONNECT = words([4, 20], [4, 0x24], [4, 2], [4, 0], [4, 1]);
const RESAMPLE = words([4, 20], [4, 0x14], [4, 0], [4, 0], [4, 1]);

/** [what, command, payload, whether it is refused]; all after VERSION. */
const MESSAGES: readonly (readonly [string, number, Uint8Array])[] = [
  ['a command that takes none', 4, GET_INFO],
  ['a mapping', 2, DMA_MAP],
  ['an eventfd for MSI-X', 8, CONNECT],
  ['an eventfd that unmasks INTx', 8, RESAMPLE],
  ['a region access', 9, words([8, 0], [4, 0], [4, 4])],
  ['a second VERSION', 1, VERSION],
  ['a command that does not exist', 77, NOTHING],
  ['a device reset', 13, NOTHING],
];

interface Setup {
  readonly target: TargetProcess;
  readonly path: string;
  readonly disk: FuseDisk;
  /** Opens the file; the test's own closes never wait. */
  readonly open: () => number;
}

async function setUp(t: Test): Promise<Setup> {
  const disk = await FuseDisk.mount(t, 1 << 20);
  const target = new Target(t);
  // Lets the closes go before the target is killed: the kernel keeps a process that waits for one.
  t.teardown(() => disk.behave({}));
  await target.start();
  await target.call('bdev_null_create', { name: 'n', num_blocks: 1024, block_size: 512 });
  const path = await target.serve('n');
  const open = () => {
    const fd = openSync(disk.path, 'r+');
    t.teardown(() => closeSync(fd));
    return fd;
  };
  return { target, path, disk, open };
}

/** The target answers, on its RPC socket and to a VMM that agrees on a version on its own socket. */
async function lives({ target }: Setup): Promise<void> {
  await target.call('spdk_get_version');
}

for (const [name, behaviour] of [
  ['fails', { close: EIO, spare: process.pid }],
  ['hangs', { hold: ['close'] as const, spare: process.pid }],
] as const) {
  t.test(`descriptors whose close ${name}`, { skip: noFuse }, async (t) => {
    const setup = await setUp(t);
    const { path, disk, open } = setup;
    const fd = open();
    await disk.behave(behaviour);
    for (const [what, command, payload] of MESSAGES) {
      const peer = RawPeer.connect(path);
      peer.send(raw(1, 1, VERSION));
      await peer.next();
      peer.send(raw(2, command, payload), [fd]);
      t.match((await peer.next()).header, { messageId: 2 }, `${what} is answered`);
      await lives(setup);
      peer.close();
    }
    // With VERSION itself, with half a message, and with more than is taken.
    const endings: ((peer: RawPeer) => void)[] = [
      (peer) => peer.send(raw(1, 1, VERSION), [fd]),
      (peer) => peer.send(raw(1, 1, VERSION).subarray(0, 10), [fd]),
      (peer) => peer.send(raw(1, 1, VERSION).subarray(0, 1), Array(200).fill(fd)),
      (peer) => {
        peer.send(raw(1, 1, VERSION));
        for (let i = 0; i < 50; i++) peer.send(raw(2, 13, NOTHING), [fd, fd]);
      },
    ];
    for (const end of endings) {
      const peer = RawPeer.connect(path);
      end(peer);
      await new Promise((resolve) => setTimeout(resolve, 50));
      peer.close();
      await lives(setup);
    }
    await disk.behave({});
    const caller = await Caller.join(t, path);
    await caller.call(4, GET_INFO);
  });
}

t.test('who sends descriptors that do not close is cut off', { skip: noFuse }, async (t) => {
  const setup = await setUp(t);
  const { target, path, disk, open } = setup;
  const fd = open();
  const { fds, threads } = target.usage();
  await disk.behave({ hold: ['close'], spare: process.pid });
  const peer = RawPeer.connect(path);
  peer.send(raw(1, 1, VERSION));
  await peer.next();
  // More than it may have open; what the socket does not take waits in the peer.
  for (let i = 0; i < 200; i++) peer.send(raw(2, 4, GET_INFO), Array(8).fill(fd));
  await disk.held(1);
  const rest = peer.rest();
  await lives(setup);
  const usage = target.usage();
  t.ok(usage.threads - threads <= 4, `${usage.threads - threads} threads wait`);
  t.ok(usage.fds - fds <= 256 + 253 + 8, `${usage.fds - fds} descriptors are held`);
  t.ok((await rest).length < 100, 'the connection ends, and not all was answered');
  await lives(setup);
  // Its socket serves nobody until they are closed.
  const next = RawPeer.connect(path);
  t.teardown(() => next.close());
  next.send(raw(1, 1, VERSION));
  const first = next.next();
  const answered = first.then(() => true);
  const late = new Promise((resolve) => setTimeout(resolve, 300, false));
  t.equal(await Promise.race([answered, late]), false);
  await disk.behave({});
  t.match((await first).header, { messageId: 1, error: 0 });
});

t.test(
  'a subsystem whose client sent such descriptors can be removed',
  { skip: noFuse },
  async (t) => {
    const { target, path, disk, open } = await setUp(t);
    const fd = open();
    await disk.behave({ hold: ['close'], spare: process.pid });
    const peer = RawPeer.connect(path);
    t.teardown(() => peer.close());
    peer.send(raw(1, 1, VERSION));
    await peer.next();
    for (let i = 0; i < 20; i++) peer.send(raw(2, 4, GET_INFO), Array(8).fill(fd));
    await disk.held(1);
    await target.call('nvmf_delete_subsystem', { nqn: 'nqn.2026-11.io.doorbell:test' });
    t.throws(() => native.socketConnect(path), { code: 'ENOENT' });
  },
);
