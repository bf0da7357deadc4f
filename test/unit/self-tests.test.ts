/** Self-tests of a controller, one after the other, whatever the disks do. */
import t from 'tap';
import type { ControllerHost } from '../../src/nvme/host.ts';
import { SelfTests } from '../../src/nvme/self-test.ts';
import { SelfTestCode } from '../../src/spec/admin.ts';
import { SelfTestEnd } from '../../src/spec/logs.ts';
import { Status } from '../../src/spec/nvme.ts';

t.test('a test begins when the one before has let go of the disks', async (t) => {
  const syncs: { readonly nsid: number; readonly answer: () => void }[] = [];
  const verified: number[] = [];
  let working = 0;
  const namespace = { blockSize: 512, numBlocks: 8 };
  const host = {
    namespaces: new Map([
      [1, namespace],
      [2, namespace],
    ]),
    log: { error: () => {} },
    maintain: async (work: (operate: (nsid: number) => Promise<number>) => Promise<unknown>) => {
      working += 1;
      try {
        return await work(async (nsid) => {
          verified.push(nsid);
          return Status.SUCCESS;
        });
      } finally {
        working -= 1;
      }
    },
    syncNamespace: (nsid: number) =>
      new Promise<void>((answer) => {
        syncs.push({ nsid, answer });
      }),
  };
  const tests = new SelfTests(host as unknown as ControllerHost, () => 0);
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  for (let i = 0; i < 5; i++) {
    tests.start(SelfTestCode.EXTENDED, [1, 2]);
    await turn();
    tests.stop(SelfTestEnd.ABORTED);
    t.equal(tests.isRunning, false);
  }
  tests.start(SelfTestCode.EXTENDED, [2]);
  await turn();
  t.equal(working, 1);
  t.equal(syncs.length, 1, 'the disk is asked once');
  syncs[0].answer();
  await turn();
  t.strictSame(
    syncs.map(({ nsid }) => nsid),
    [1, 2],
    'the first has ended at its first sync, those between have never begun',
  );
  t.strictSame(verified, []);
  t.equal(working, 1);
  syncs[1].answer();
  while (tests.isRunning) {
    await turn();
  }
  t.strictSame(verified, [2]);
});
