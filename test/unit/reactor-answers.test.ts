/** A controller's queues, and reactors that cannot do what they are asked: no answer is dropped. */

import { pino } from 'pino';
import t from 'tap';
import { GuestMemory, type GuestRegion } from '../../src/memory/guest.ts';
import { native } from '../../src/native/index.ts';
import { NO_COALESCING } from '../../src/nvme/features/coalescing.ts';
import type { PlaneMessage } from '../../src/reactor/control.ts';
import type { ReactorPool } from '../../src/reactor/pool.ts';
import { Status } from '../../src/spec/nvme.ts';
import { IoQueues } from '../../src/target/queues.ts';

const REACTORS = 2;
const PAGE = 4096;

/** Two reactors that answer as they are told to, and know the controller. */
async function start(refuse: readonly string[] = [], regions: readonly GuestRegion[] = []) {
  let vectors = 0;
  const asked: { reactor: number; kind: string }[] = [];
  const refused = new Set(refuse);
  let next = 0;
  const pool = {
    alive: true,
    placement: { place: () => next++ % REACTORS, unload: () => {}, count: () => {} },
    request: async (reactor: number, { kind }: PlaneMessage) => {
      asked.push({ reactor, kind });
      // The second one is the one that cannot.
      return reactor === 1 && refused.has(kind) ? Status.INTERNAL_ERROR : Status.SUCCESS;
    },
  };
  const lost: string[] = [];
  const memory = new GuestMemory(native);
  for (const known of regions) {
    memory.add(known);
  }
  const queues = new IoQueues({
    controller: 1,
    pool: pool as unknown as ReactorPool,
    log: pino({ level: 'silent' }),
    doorbells: new SharedArrayBuffer(PAGE),
    trapped: false,
    adaptiveInterrupts: true,
    adminSeen: new SharedArrayBuffer(16),
    memory,
    row: 0,
    maxTransferBytes: PAGE,
    writeThrough: () => false,
    coalescing: () => NO_COALESCING,
    copyFormats: () => 3,
    namespaces: () => [],
    eventfds: () => [vectors++],
    lost: (reason) => lost.push(reason),
  });
  for (const qid of [1, 2]) {
    await queues.createCq({ qid, size: 16, iova: 0, interrupts: false, vector: 0 });
  }
  return { queues, asked, refused, lost };
}

const region: GuestRegion = {
  iova: 0x10_0000,
  size: PAGE,
  buffer: native.mapAnonymous(PAGE),
  writable: true,
};

t.test('a region that one reactor cannot map is mapped nowhere', async (t) => {
  const { queues, asked, refused, lost } = await start();
  asked.length = 0;
  refused.add('map');
  await t.rejects(queues.map(region), { code: 'ENOMEM' });
  t.strictSame(asked, [
    { reactor: 0, kind: 'map' },
    { reactor: 1, kind: 'map' },
    { reactor: 0, kind: 'unmap' },
    { reactor: 1, kind: 'unmap' },
  ]);
  t.strictSame(lost, [], 'the controller goes on');
  refused.add('unmap');
  await t.rejects(queues.map(region), { code: 'EIO' });
  t.strictSame(lost, ['a reactor could not let go of memory'], 'unless it stays mapped');
});

t.test('what leaves a reactor in an unknown state fails the controller', async (t) => {
  const { queues, refused, lost } = await start();
  const shadow = { doorbells: PAGE, eventIdx: 2 * PAGE };
  const changes: [string, () => Promise<unknown>][] = [
    ['unmap', () => queues.unmap(region.iova, region.size)],
    ['shadow', () => queues.setShadow(shadow)],
    ['eventfds', () => queues.eventfdsChanged()],
    ['write-through', () => queues.setWriteThrough(true)],
    ['copy-formats', () => queues.setCopyFormats(3)],
    ['remove-namespace', () => queues.removeNamespace(1)],
    ['reset', () => queues.reset()],
  ];
  for (const [kind, change] of changes) {
    await change();
    t.strictSame(lost.splice(0), [], `${kind}: carried out`);
    refused.add(kind);
    await t.rejects(change(), { code: 'EIO' }, `${kind}: refused`);
    t.match(lost.splice(0), [/^a reactor could not /]);
  }
});

t.test('what takes nothing away is refused', async (t) => {
  const { queues, refused, lost } = await start();
  refused.add('limit').add('delete-cq').add('add-namespace');
  await t.rejects(queues.limitNamespace(1, undefined), { code: 'EIO' });
  t.equal(await queues.deleteCq(2), Status.INTERNAL_ERROR);
  t.strictSame(lost, []);
});

t.test('a reactor that cannot map all memory when it gets to know the controller', async (t) => {
  const { lost, asked } = await start(['map'], [region]);
  t.ok(asked.some(({ kind }) => kind === 'map'));
  await new Promise((resolve) => setImmediate(resolve));
  t.strictSame(lost, ["reactor 1 could not map the guest's memory"]);
});
