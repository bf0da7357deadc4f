/** What is kept of a sanitize operation is what hosts were told, whatever becomes of the folder that it is kept in. */
import t from 'tap';
import type { ControllerHost } from '../../src/nvme/host.ts';
import { SanitizeState } from '../../src/nvme/sanitize.ts';
import { SanitizeAction } from '../../src/spec/admin.ts';
import { SanitizeLog, SanitizeStateCode, SanitizeStatus } from '../../src/spec/logs.ts';
import { Status } from '../../src/spec/nvme.ts';
import { KeptSanitize } from '../../src/target/kept-sanitize.ts';

const { NEVER, IN_PROGRESS, COMPLETED, FAILED } = SanitizeStateCode;
const NQN = 'nqn.2026-11.io.doorbell:s';
const REQUEST = {
  ...{ action: SanitizeAction.BLOCK_ERASE, dw10: 2, unrestricted: true, noDeallocate: false },
  ...{ passes: 1, invert: false, pattern: 0 },
};

/** A subsystem with the namespaces 1 and 2, whose UUIDs are 'a' and 'b'. */
function host(status: number = Status.SUCCESS) {
  const namespace = (nsid: number, uuid: string) => ({ nsid, uuid, blockSize: 512, numBlocks: 8 });
  const erased: number[] = [];
  const busy = new Map<number, number>();
  const log = { failure: undefined as Error | undefined };
  let told = () => {};
  const over = new Promise<void>((resolve) => {
    told = resolve;
  });
  const fake = {
    namespaces: new Map([
      [1, namespace(1, 'a')],
      [2, namespace(2, 'b')],
    ]),
    log: { error: () => {} },
    occupyNamespaces: async (nsids: readonly number[], each: number) => {
      for (const nsid of nsids) {
        busy.set(nsid, each);
      }
      if (log.failure !== undefined && each === Status.SANITIZE_IN_PROGRESS) {
        throw log.failure;
      }
    },
    maintain: (work: (operate: (nsid: number) => Promise<number>) => Promise<number>) =>
      work(async (nsid) => {
        erased.push(nsid);
        return status;
      }),
    syncNamespace: async () => {},
    tellHosts: () => told(),
  };
  return { host: fake as unknown as ControllerHost, erased, busy, over, log };
}

/** What is kept, and on stable storage; `fails` times it cannot be written. */
function keeping() {
  const kept = new KeptSanitize();
  const stored = { states: [] as number[], fails: 0 };
  kept.follow([], async () => {
    if (stored.fails > 0) {
      stored.fails -= 1;
      throw new Error('No space left');
    }
    stored.states = kept.list().map(({ state }) => state);
  });
  return { kept, stored };
}

const stateOf = (state: SanitizeState): number =>
  SanitizeStatus.decode(SanitizeLog.read(new DataView(state.page().buffer)).sstat).state;

t.test('one that cannot be kept, or for which a reactor fails, has not begun', async (t) => {
  const { kept, stored } = keeping();
  const state = new SanitizeState();
  kept.attach(NQN, state);
  const { host: it, busy, erased, log } = host();
  stored.fails = 1;
  await t.rejects(state.start(it, REQUEST), /No space/);
  log.failure = new Error('a reactor died');
  await t.rejects(state.start(it, REQUEST), /a reactor died/);
  t.equal(stateOf(state), NEVER);
  t.strictSame([...busy.values()], [Status.SUCCESS, Status.SUCCESS]);
  t.strictSame(kept.list(), []);
  t.strictSame(stored.states, []);
  t.strictSame(erased, []);
});

t.test('it is over when that is kept', async (t) => {
  const { kept, stored } = keeping();
  const state = new SanitizeState();
  kept.attach(NQN, state);
  const { host: it, busy, over } = host();
  await state.start(it, REQUEST);
  stored.fails = 1;
  t.strictSame(stored.states, [IN_PROGRESS]);
  // Nothing else keeps this process, while it waits to try again.
  const awake = setInterval(() => {}, 1000);
  await over;
  clearInterval(awake);
  t.strictSame(stored.states, [COMPLETED]);
  t.equal(stateOf(state), COMPLETED);
  t.strictSame([...busy.values()], [Status.SUCCESS, Status.SUCCESS]);
});

t.test('the end of a failure is kept', async (t) => {
  const { kept, stored } = keeping();
  const state = new SanitizeState();
  kept.attach(NQN, state);
  const { host: it, busy, over } = host(Status.WRITE_FAULT);
  await state.start(it, REQUEST);
  await over;
  t.strictSame(stored.states, [FAILED]);
  stored.fails = 1;
  await t.rejects(state.exit(it), /No space/);
  t.equal(stateOf(state), FAILED);
  await state.exit(it);
  t.strictSame(stored.states, [NEVER]);
  t.strictSame([...busy.values()], [Status.SUCCESS, Status.SUCCESS]);
});

t.test('after a restart it is about the namespaces of before', async (t) => {
  const { kept } = keeping();
  kept.follow([{ nqn: NQN, state: IN_PROGRESS, request: REQUEST, uuids: ['b'] }], async () => {});
  const state = new SanitizeState();
  kept.attach(NQN, state);
  const { host: it, erased, over } = host();
  state.resume(it);
  await over;
  t.strictSame(erased, [2]);
});

t.test('the subsystem goes', async (t) => {
  const { kept, stored } = keeping();
  const state = new SanitizeState();
  kept.attach(NQN, state);
  const { host: it } = host(Status.ABORTED_BY_REQUEST);
  const started = state.start(it, REQUEST);
  state.abandon();
  await started;
  await new Promise((resolve) => setImmediate(resolve));
  t.strictSame(stored.states, [IN_PROGRESS], 'that it was aborted is no end of it');
  await kept.forget(NQN, state);
  t.strictSame(stored.states, []);
  const next = new SanitizeState();
  kept.attach(NQN, next);
  t.equal(stateOf(next), NEVER);
});
