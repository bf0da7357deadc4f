/**
 * A backend with a descriptor of its own, in a reactor that the test turns itself: reads and writes over a socket through the ring, answers in
 * any order, requests that are left to themselves, a bdev that is closed and a peer that goes while something is under way.
 */
import { closeSync, readdirSync } from 'node:fs';
import { MessageChannel } from 'node:worker_threads';
import t, { type Test } from 'tap';
import { makeBlockStates } from '../../src/bdev/block-states.ts';
import { COUNTERS_BYTES, Counters } from '../../src/bdev/counters.ts';
import { Op } from '../../src/bdev/op.ts';
import { BdevChannel } from '../../src/bdev/requests/channel.ts';
import { Owner, type RequestQueue } from '../../src/bdev/requests/owner.ts';
import { Share } from '../../src/bdev/requests/share.ts';
import { makeStaleWrites, StaleWrites } from '../../src/bdev/requests/stale-writes.ts';
import { Result } from '../../src/bdev/result.ts';
import { COMMAND_WORDS } from '../../src/limits.ts';
import { native } from '../../src/native/index.ts';
import { CONTROL_BYTES } from '../../src/reactor/control.ts';
import { Reactor } from '../../src/reactor/loop.ts';
import type { PlaneParts } from '../../src/reactor/plane.ts';
import { realPlatform } from '../../src/reactor/platform.ts';
import { Random } from '../helpers/random.ts';
import { RemoteBackend, RemoteServer } from '../helpers/remote-disk.ts';

const DISK = 1024 * 1024;
const BLOCK = 512;

class TestShare extends Share {
  failed(): void {}
  countError(): void {}
}

class TestQueue implements RequestQueue {
  readonly owner: Owner;
  discarded = false;
  readonly stopped = false;
  readonly results = new Map<number, number>();

  constructor(owner: Owner) {
    this.owner = owner;
  }

  get line(): TestQueue {
    return this;
  }

  reserve(): void {}
  unreserve(): void {}
  resume(): void {
    throw new Error('nothing waits here');
  }

  completed(cid: number, result: number): void {
    this.results.set(cid, result);
  }
}

function start(t: Test) {
  const random = new Random();
  t.comment(`SEED=${random.seed}`);
  const { port1 } = new MessageChannel();
  const wakeFd = native.eventfdCreate();
  const task = {
    index: 0,
    cpu: undefined,
    workerCpus: native.getAffinity(),
    // It never sleeps.
    spinUs: 1e9,
    maxSleepUs: 1e6,
    control: new SharedArrayBuffer(CONTROL_BYTES),
    counters: new SharedArrayBuffer(COUNTERS_BYTES),
    wakeFd,
    port: port1,
  };
  const platform = realPlatform(task);
  let parts: PlaneParts | undefined;
  const reactor = new Reactor(task, platform, (given) => {
    parts = given;
    const nothing = () => 0;
    return {
      handle: () => {},
      poll: nothing,
      publish: () => {},
      settle: () => {},
      signal: nothing,
      watch: nothing,
      heard: () => {},
      arm: () => {},
      hush: () => {},
      unheard: false,
      due: Number.POSITIVE_INFINITY,
      report: () => {},
    };
  });
  const { context, requests } = parts!;
  const [near, far] = native.socketPair();
  let open = [near, far];
  const close = (fd: number) => {
    open = open.filter((each) => each !== fd);
    closeSync(fd);
  };
  t.teardown(() => {
    for (const fd of [...open, platform.ring.fd, wakeFd]) {
      closeSync(fd);
    }
    port1.close();
  });
  const backend = new RemoteBackend(near, context);
  const stale = new StaleWrites(makeStaleWrites());
  const channel = new BdevChannel(1, backend, stale, makeBlockStates(), context);
  channel.users = 1;
  const owner = new Owner(1);
  const queue = new TestQueue(owner);
  const share = new TestShare(owner, channel, new Counters(task.counters, 0), undefined);
  requests.open(share);
  const server = new RemoteServer(far, DISK, random);
  const turn = (times = 1) => {
    for (let i = 0; i < times; i++) {
      reactor.turn();
    }
  };
  const until = (condition: () => boolean, step = () => {}) => {
    for (let i = 0; !condition(); i++) {
      if (i > 100_000) {
        throw new Error('nothing comes of it');
      }
      step();
      turn();
    }
  };
  const memory = new Uint8Array(native.mapAnonymous(2 * DISK));
  const base = native.addressOf(memory);
  const words = new Int32Array(COMMAND_WORDS);
  const submit = (op: Op, cid: number, lba: number, blocks: number, at: number) => {
    const { request } = context;
    request.segments.address[0] = base + at;
    request.segments.length[0] = blocks * BLOCK;
    request.segments.count = 1;
    request.offset[0] = lba * BLOCK;
    request.length = blocks * BLOCK;
    request.fua = false;
    return requests.submit(queue, share, op, cid, words, 0, false);
  };
  const { ring } = platform;
  return { random, close, near, far, backend, stale, channel, owner, queue, share, server, turn, until, memory, submit, requests, context, ring }; // biome-ignore format: all of it
}

t.test('what is written is read, whatever the order of the answers', async (t) => {
  const { random, server, turn, until, memory, submit, queue, context } = start(t);
  const copy = new Uint8Array(DISK);
  let cid = 0;
  for (let round = 0; round < 50; round++) {
    // Parts that do not overlap.
    const under: { at: number; lba: number; blocks: number; cid: number; read: boolean }[] = [];
    const part = 32;
    for (let i = 0; i < DISK / BLOCK / part; i += 1 + random.below(8)) {
      const blocks = 1 + random.below(part);
      const lba = i * part + random.below(part - blocks + 1);
      const read = random.chance(0.5);
      const at = lba * BLOCK;
      const data = memory.subarray(at, at + blocks * BLOCK);
      data.fill(random.below(256));
      if (!read) {
        copy.set(data, at);
      }
      t.equal(submit(read ? Op.READ : Op.WRITE, cid, lba, blocks, at), -1);
      under.push({ at, lba, blocks, cid, read });
      cid += 1;
    }
    until(
      () => under.every(({ cid }) => queue.results.has(cid)),
      () => {
        server.receive();
        server.answer(random.below(4));
      },
    );
    for (const { at, blocks, cid, read } of under) {
      const end = at + blocks * BLOCK;
      const equal = Buffer.from(memory.subarray(at, end)).equals(copy.subarray(at, end));
      t.ok(!read || equal, `command ${cid}`);
      t.equal(queue.results.get(cid), Result.OK);
    }
  }
  t.ok(server.disk.equals(copy), 'the disk');
  turn(10);
  t.notOk(context.ended.any);
});

t.test('requests that are left to themselves', async (t) => {
  const { server, until, memory, submit, queue, owner, share, requests, stale, channel, backend } =
    start(t);
  memory.fill(0x11);
  submit(Op.READ, 1, 0, 8, 0);
  submit(Op.WRITE, 2, 100, 8, 65_536);
  until(() => server.held === 2, () => server.receive()); // biome-ignore format: short
  let drained = false;
  const scope = { includes: () => true, ends: true, detaches: true, result: Result.ABORTED };
  requests.flight.drain(owner, scope, () => {
    drained = true;
  });
  until(() => drained);
  t.strictSame([...queue.results], [[1, Result.ABORTED], [2, Result.ABORTED]]); // biome-ignore format: pairs
  t.ok(stale.blocks(100 * BLOCK, BLOCK), 'nobody else writes there until it is over');
  requests.close(share);
  t.notOk(backend.closed, 'it is still needed');
  until(() => channel.users === 0, () => server.answer()); // biome-ignore format: short
  t.notOk(stale.any);
  t.ok(backend.closed);
  t.ok(
    memory.subarray(0, 4096).every((byte) => byte === 0x11),
    "the owner's memory is its own",
  );
});

t.test('a bdev is closed while a poll is under way', async (t) => {
  const { share, requests, backend, until, ring, near, close, context, server } = start(t);
  until(() => true, () => server.receive()); // biome-ignore format: short
  t.ok(context.tags.any);
  requests.close(share);
  t.ok(backend.closed);
  until(() => !context.tags.any);
  t.equal(ring.inflight, 0, 'nothing is under way in the kernel');
  const count = readdirSync('/proc/self/fd').length;
  close(near);
  t.equal(readdirSync('/proc/self/fd').length, count - 1);
});

t.test('tags are used again, and tell nobody of the one before', async (t) => {
  const { context, until, turn, near, ring } = start(t);
  const heard: number[] = [];
  const first = context.tags.take(() => heard.push(1));
  first.poll(near, 1);
  turn();
  t.throws(() => first.poll(near, 1), /under way/);
  first.retire();
  const second = context.tags.take(() => heard.push(2));
  t.not(second.userData, first.userData, 'not before the first has ended');
  t.throws(() => first.poll(near, 1), /retired/);
  until(() => context.tags.take(() => {}).userData === first.userData);
  t.strictSame(heard, []);
  second.poll(near, 4);
  until(() => heard.length > 0);
  t.strictSame(heard, [2]);
  t.equal(ring.inflight, 1, "the backend's own poll");
});

t.test('the peer goes', async (t) => {
  const { submit, queue, far, close, until, server } = start(t);
  submit(Op.READ, 1, 0, 8, 0);
  submit(Op.FLUSH, 2, 0, 1, 0);
  until(() => server.held === 2, () => server.receive()); // biome-ignore format: short
  close(far);
  until(() => queue.results.size === 2);
  t.strictSame([...queue.results.values()], [Result.PATH_LOST, Result.PATH_LOST]);
  t.equal(submit(Op.READ, 3, 0, 8, 0), Result.PATH_LOST);
});
