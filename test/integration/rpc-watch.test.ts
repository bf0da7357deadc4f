/** Connections that watch: every event once and in order, filters, snapshots, and clients that do not read. */
import t, { type Test } from 'tap';
import { EVENTS_KEPT } from '../../src/target/events.ts';
import { countingReactors, RawClient, startRealTarget, startRpcTarget } from '../helpers/rpc.ts';

interface Notification {
  readonly method?: string;
  readonly id?: number;
  readonly result?: unknown;
  readonly error?: { readonly code: number; readonly message: string };
  readonly params?: Readonly<Record<string, unknown>>;
}

class Watcher {
  readonly client: RawClient;

  constructor(client: RawClient) {
    this.client = client;
  }

  static async connect(t: Test, path: string): Promise<Watcher> {
    const client = await RawClient.connect(path);
    t.teardown(() => client.close());
    return new Watcher(client);
  }

  next(): Promise<Notification> {
    return this.client.next() as Promise<Notification>;
  }

  async watch(params: object): Promise<Notification> {
    const request = { jsonrpc: '2.0', id: 1, method: 'doorbell_watch', params };
    this.client.send(JSON.stringify(request));
    for (;;) {
      const answer = await this.next();
      if (answer.id === 1) {
        return answer;
      }
    }
  }
}

t.test('events come as they happen', async (t) => {
  const { path, call, target } = await startRpcTarget(t);
  await call('bdev_null_create', { name: 'before', block_size: 512, num_blocks: 8 });
  const watcher = await Watcher.connect(t, path);
  t.match(await watcher.watch({}), { result: 1 });
  await call('bdev_null_create', { name: 'a', block_size: 512, num_blocks: 8 });
  await call('bdev_null_delete', { name: 'a' });
  t.match(await watcher.next(), {
    jsonrpc: '2.0',
    method: 'doorbell_event',
    id: undefined,
    params: { seq: 2, type: 'bdev-created', bdev: 'a' },
  });
  t.match(await watcher.next(), { params: { seq: 3, type: 'bdev-deleted' } });
  watcher.client.send('{"jsonrpc":"2.0","id":5,"method":"framework_wait_init"}');
  t.match(await watcher.next(), { id: 5, result: true }, 'requests are answered as ever');

  t.match(await watcher.watch({ types: ['error'], since: 0 }), { result: 3 });
  target.events.emit({ type: 'subsystem-created', nqn: 'x' });
  target.events.emit({ type: 'error', message: 'one' });
  t.match(await watcher.next(), { params: { seq: 5, type: 'error' } }, 'filtered');

  const late = await Watcher.connect(t, path);
  t.match(await late.watch({ since: 2 }), { result: 5 });
  for (const seq of [3, 4, 5]) {
    t.match(await late.next(), { params: { seq } }, 'what was missed comes first');
  }
  t.match(await late.watch({ types: [] }), { result: 5 });
  target.events.emit({ type: 'error', message: 'two' });
  target.events.emit({ type: 'error', message: 'three' });
  late.client.send('{"jsonrpc":"2.0","id":6,"method":"framework_wait_init"}');
  t.match(await late.next(), { id: 6 }, 'ended');
  t.match(await watcher.next(), { params: { seq: 6 } });
});

t.test('what makes no watch', async (t) => {
  const { path, refusal } = await startRpcTarget(t);
  t.match(await refusal('doorbell_watch', { types: ['nothing'] }), {
    code: -32602,
    message: /types\.0.*must be one of client-connected/,
  });
  t.match(await refusal('doorbell_watch', { snapshot_ms: 99 }), {
    code: -32602,
    message: /snapshot_ms.*100/,
  });
  const watcher = await Watcher.connect(t, path);
  t.match(await watcher.watch({ since: -1 }), { error: { code: -32602 } });
});

t.test('one who does not read loses the oldest events, and is told', async (t) => {
  const { path, call, target } = await startRpcTarget(t);
  const slow = await Watcher.connect(t, path);
  const other = await Watcher.connect(t, path);
  await slow.watch({});
  await other.watch({ types: ['reactor-lost'] });
  slow.client.socket.pause();
  // Far more than the sockets' buffers hold.
  const total = 20_000;
  for (let i = 0; i < total; i++) {
    target.events.emit({ type: 'error', message: 'x'.repeat(500) });
    if (i % 1000 === 0) {
      t.equal(await call('framework_wait_init'), true, 'others are served');
    }
  }
  target.events.emit({ type: 'reactor-lost', reactor: 0, message: 'y' });
  t.match(await other.next(), { params: { type: 'reactor-lost' } });
  slow.client.socket.resume();
  let seen = 0;
  let dropped = 0;
  let last = 0;
  let inOrder = true;
  while (last < total + 1) {
    const { method, params } = await slow.next();
    if (method === 'doorbell_dropped') {
      dropped += Number(params?.dropped);
    } else {
      seen += 1;
      inOrder &&= Number(params?.seq) > last;
      last = Number(params?.seq);
    }
  }
  t.ok(inOrder);
  t.equal(seen + dropped, total + 1, 'each was told or counted');
  t.ok(dropped > total / 2, `${dropped} were dropped`);
  t.ok(seen >= EVENTS_KEPT, 'the last ones were not');
});

t.test('watchers that go leave nothing behind', async (t) => {
  const { path, call, target } = await startRpcTarget(t);
  let listeners = 0;
  const subscribe = target.events.subscribe.bind(target.events);
  target.events.subscribe = (listener) => {
    listeners += 1;
    const stop = subscribe(listener);
    let stopped = false;
    return () => {
      listeners -= stopped ? 0 : 1;
      stopped = true;
      stop();
    };
  };
  for (let i = 0; i < 20; i++) {
    const watcher = await Watcher.connect(t, path);
    await watcher.watch({ snapshot_ms: 100 });
    await watcher.watch({ snapshot_ms: 100 });
    watcher.client.close();
  }
  while (listeners > 0) {
    t.equal(await call('framework_wait_init'), true);
  }
  t.equal(listeners, 0);
});

t.test('snapshots from time to time', async (t) => {
  const { path } = await startRealTarget(t);
  const watcher = await Watcher.connect(t, path);
  await watcher.watch({ types: [], snapshot_ms: 100 });
  let ticks = 0;
  for (let i = 0; i < 3; i++) {
    const { method, params } = await watcher.next();
    t.equal(method, 'doorbell_snapshot');
    t.match(params, { pid: process.pid, reactors: [{ index: 0, alive: true }] });
    t.ok(Number(params?.ticks) > ticks, 'a new one');
    ticks = Number(params?.ticks);
  }
});

t.test('a client that is gone before its watch begins leaves nothing behind', async (t) => {
  let asked = () => {};
  let answer = () => {};
  const asking = new Promise<void>((resolve) => {
    asked = resolve;
  });
  const held = new Promise<void>((resolve) => {
    answer = resolve;
  });
  const report = () => {
    asked();
    return held;
  };
  const { path, target, call, dispatcher } = await startRpcTarget(t, {
    reactors: { ...countingReactors(), report },
  });
  const { events } = target;
  let watching = 0;
  const subscribe = events.subscribe.bind(events);
  events.subscribe = (listener) => {
    watching += 1;
    const unsubscribe = subscribe(listener);
    return () => {
      watching -= 1;
      unsubscribe();
    };
  };
  const client = await RawClient.connect(path);
  // With an answer unread, its end is a reset, not an end of file.
  client.socket.pause();
  client.send('{"jsonrpc":"2.0","id":0,"method":"spdk_get_version"}');
  const methods = ['doorbell_get_snapshot', 'doorbell_watch'];
  client.send(JSON.stringify(methods.map((method) => ({ jsonrpc: '2.0', id: 1, method }))));
  await asking;
  client.close();
  // By then the end of the connection was noticed.
  await call('spdk_get_version');
  answer();
  const counts = () => dispatcher.counts.get('doorbell_watch');
  while (counts() === undefined) {
    await call('framework_wait_init');
  }
  t.match(counts(), { calls: 1, errors: 0 }, 'the watch did begin');
  t.equal(watching, 0);
});
