/** Server-sent events: nothing is lost over a reconnection, one snapshot serves all, and a client that does not read is dropped. */
import t from 'tap';
import { MAX_EVENT_CLIENTS } from '../../src/http/sse.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import type { Snapshot } from '../../src/target/snapshot.ts';
import { FuseDisk, noFuse } from '../helpers/fuse.ts';
import { ask, RawHttp, SseClient, startHttp } from '../helpers/http.ts';
import { MIB } from '../helpers/target.ts';

t.test('events as they happen', async (t) => {
  const { url, target } = await startHttp(t);
  const client = await SseClient.connect(t, `${url}events`);
  await client.next('snapshot');
  const bdev = await target.malloc(4096);
  const { last } = target.target.events;
  t.match(await client.next('bdev-created'), {
    id: String(last),
    data: { type: 'bdev-created', seq: last, bdev, time: /^\d{4}-.*Z$/ },
  });
});

t.test('a client that comes back gets what it missed', async (t) => {
  const { url, target } = await startHttp(t);
  const first = await SseClient.connect(t, `${url}events?since=0`);
  await target.malloc(4096);
  const seen = await first.next('bdev-created');
  first.close();
  const names = [await target.malloc(4096), await target.malloc(4096)];
  const again = await SseClient.connect(t, `${url}events`, { 'Last-Event-ID': `${seen?.id}` });
  for (const bdev of names) {
    t.match(await again.next('bdev-created'), { data: { bdev } });
  }
  const all = await SseClient.connect(t, `${url}events?since=0`);
  for (let seq = 1; seq <= target.target.events.last; seq++) {
    t.match(await all.next(), { id: String(seq) });
  }
  // As after a restart of the target.
  const older = await SseClient.connect(t, `${url}events`, { 'Last-Event-ID': '999999' });
  t.match(await older.next(), { id: '1' });
  const fresh = await SseClient.connect(t, `${url}events`);
  t.match(await fresh.next(), { event: 'snapshot' }, 'without a number: from now on');
});

t.test('an error of a disk', { skip: noFuse }, async (t) => {
  const disk = await FuseDisk.mount(t, MIB);
  const { url, target } = await startHttp(t);
  const events = await SseClient.connect(t, `${url}events`);
  const bdev = await target.file(disk.path);
  const served = await target.serve(bdev);
  const client = await target.connect(served);
  const pair = await client.createQueuePair(1, 8);
  await disk.behave({ read: 5 });
  const { iova } = client.memory;
  await pair.execute({ opcode: NvmOpcode.READ, nsid: 1, prp1: iova, cdw10: 8, cdw12: 7 });
  t.match(await events.next('error'), {
    data: { nqn: served.nqn, nsid: 1, bdev, message: /^read at LBA 8 failed: EIO / },
  });
});

t.test('numbers that are none', async (t) => {
  const { url } = await startHttp(t);
  for (const since of ['x', '-1', '1e3', '', '9'.repeat(16), '1&since=2']) {
    const answer = await ask(`${url}events?since=${since}`);
    t.equal(answer.status, 400, since);
    t.match(answer.json, { error: /numbers of events/ });
  }
});

t.test('a snapshot a second, taken once for all', async (t) => {
  const { url, snapshots } = await startHttp(t);
  t.equal(snapshots(), 0, 'none while nobody listens');
  const clients: SseClient[] = [];
  for (let i = 0; i < 5; i++) {
    clients.push(await SseClient.connect(t, `${url}events`));
  }
  const next = async (client: SseClient): Promise<number> => {
    const event = await client.next('snapshot');
    t.match(event, { event: 'snapshot' });
    t.notOk(event !== undefined && 'id' in event, 'does not count as an event');
    return (event as { data: Snapshot }).data.ticks;
  };
  // The last has come when all are there: what it gets, the others get as well.
  const last = clients[clients.length - 1];
  const ticks = [await next(last), await next(last), await next(last)];
  t.ok(ticks[0] < ticks[1] && ticks[1] < ticks[2]);
  for (const client of clients.slice(0, -1)) {
    let tick = 0;
    while (tick < ticks[0]) {
      tick = await next(client);
    }
    t.strictSame([tick, await next(client), await next(client)], ticks, 'all have the same');
  }
  t.ok(snapshots() >= ticks.length);
  for (const client of clients) {
    client.close();
  }
});

t.test('too many clients', async (t) => {
  const { url } = await startHttp(t);
  const clients: SseClient[] = [];
  for (let i = 0; i < MAX_EVENT_CLIENTS; i++) {
    clients.push(await SseClient.connect(t, `${url}events`));
  }
  const answer = await ask(`${url}events`);
  t.equal(answer.status, 503);
  t.match(answer.json, { error: 'Too many clients watch events' });
  clients[0].close();
  for (;;) {
    // The server learns of it in its own time.
    const { status } = await fetch(`${url}events`, { method: 'GET' }).then(async (response) => {
      await response.body?.cancel();
      return response;
    });
    if (status === 200) {
      break;
    }
  }
  t.match(await clients[1].next('snapshot'), { event: 'snapshot' });
});

t.test('a client that does not read is dropped, the others go on', async (t) => {
  const { url, port, target } = await startHttp(t);
  const deaf = new RawHttp(t, port);
  deaf.send('GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n');
  await deaf.until(/event: snapshot/);
  deaf.socket.pause();
  const reader = await SseClient.connect(t, `${url}events`);
  const message = 'x'.repeat(64 * 1024);
  const before = process.memoryUsage().rss;
  // More than sockets and the server's bound hold together: 32 MiB.
  for (let i = 1; i <= 512; i++) {
    target.target.events.emit({ type: 'error', message: `${i} ${message}` });
    t.match(await reader.next('error'), { data: { message: new RegExp(`^${i} x`) } });
  }
  const grown = process.memoryUsage().rss - before;
  t.comment(`${Math.round(grown / 2 ** 20)} MiB more memory`);
  deaf.socket.resume();
  await deaf.closed;
  t.ok(deaf.received.length < 16 * 2 ** 20, `it had ${deaf.received.length} bytes`);
});

t.test('the server ends', async (t) => {
  const { url, server } = await startHttp(t);
  const client = await SseClient.connect(t, `${url}events`);
  await client.next('snapshot');
  await server.close();
  t.equal(await client.next(), undefined);
});
