/** The HTTP server and those who mean ill: raw bytes, slow ones, many of them. It answers in JSON, and goes on. */
import { connect } from 'node:net';
import t, { type Test } from 'tap';
import { Type } from 'typebox';
import { MAX_HTTP_CONNECTIONS } from '../../src/limits.ts';
import { Dispatcher, method } from '../../src/rpc/dispatcher.ts';
import { ask, post, RawHttp, startHttp } from '../helpers/http.ts';
import { log } from '../helpers/rpc.ts';
import { MIB } from '../helpers/target.ts';

const HEAD = 'POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n';
const CALL = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'bdev_get_bdevs' });

/** Sends bytes, and expects a status and an error in JSON. */
async function refused(t: Test, port: number, bytes: string, status: number): Promise<void> {
  const client = new RawHttp(t, port);
  client.send(bytes);
  await client.until(/\r\n\r\n\{.*\}/s);
  t.match(
    client.received,
    new RegExp(`^HTTP/1\\.1 ${status} `),
    JSON.stringify(bytes.slice(0, 60)),
  );
  const body = client.received.slice(client.received.indexOf('\r\n\r\n') + 4);
  t.match(JSON.parse(body), { error: String });
}

t.test('what is not HTTP', async (t) => {
  const { url, port } = await startHttp(t);
  for (const bytes of [
    '\0\x01\x02\x03\r\n\r\n',
    '{"jsonrpc":"2.0"}\n',
    'GET\r\n\r\n',
    'GET / HTTP/9.9\r\n\r\n',
    'GET / HTTP/1.1\r\nHost: localhost\r\nHost : x\r\n\r\n',
    `${HEAD}Content-Length: x\r\n\r\n`,
    `${HEAD}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n`,
    `${HEAD}Transfer-Encoding: chunked\r\n\r\nzz\r\n`,
    '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
  ]) {
    await refused(t, port, bytes, 400);
  }
  await refused(t, port, 'GET /healthz HTTP/1.1\r\n\r\n', 403);
  t.equal((await ask(`${url}healthz`)).status, 200);
});

t.test('too large', async (t) => {
  const { url, port } = await startHttp(t);
  await refused(
    t,
    port,
    `GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ${'x'.repeat(20_000)}`,
    431,
  );
  await refused(t, port, `GET /${'x'.repeat(20_000)}`, 431);
  await refused(t, port, `${HEAD}Content-Length: 262145\r\n\r\n`, 413);
  await refused(t, port, `${HEAD}Content-Length: 99999999999999\r\n\r\n`, 413);
  const chunked = new RawHttp(t, port);
  chunked.send(`${HEAD}Transfer-Encoding: chunked\r\n\r\n`);
  const chunk = `10000\r\n${' '.repeat(0x10000)}\r\n`;
  for (let i = 0; i < 5; i++) {
    chunked.send(chunk);
  }
  await chunked.until(/^HTTP\/1\.1 413 /);
  t.equal((await ask(`${url}healthz`)).status, 200);
});

t.test('a request in single bytes, and several at once', async (t) => {
  const { port } = await startHttp(t);
  const request = `${HEAD}Content-Length: ${CALL.length}\r\n\r\n${CALL}`;
  const slow = new RawHttp(t, port);
  for (const byte of request) {
    slow.send(byte);
    await new Promise((resolve) => setImmediate(resolve));
  }
  await slow.until(/"result":\[\]/);
  const pipelined = new RawHttp(t, port);
  pipelined.send(request.repeat(20));
  await pipelined.until(/(?:"result":\[\].*){20}/s);
  t.pass('answered');
});

t.test('a client that does not read has one answer in memory', async (t) => {
  let calls = 0;
  const long = method({
    name: 'long',
    summary: 'More than the sockets of a connection hold.',
    params: Type.Object({}),
    result: Type.String(),
    call: () => {
      calls += 1;
      return 'x'.repeat(32 * MIB);
    },
  });
  const { url, port } = await startHttp(t, { dispatcher: new Dispatcher([long], log) });
  const client = connect(port, '127.0.0.1');
  t.teardown(() => client.destroy());
  client.pause();
  const call = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'long' });
  client.write(`${HEAD}Content-Length: ${call.length}\r\n\r\n${call}`.repeat(8));
  while (calls === 0) {
    await ask(`${url}healthz`);
  }
  for (let i = 0; i < 20; i++) {
    await ask(`${url}healthz`);
  }
  t.equal(calls, 1);
});

t.test('clients that hang up', async (t) => {
  const { url, port } = await startHttp(t);
  const request = `${HEAD}Content-Length: ${CALL.length}\r\n\r\n${CALL}`;
  for (let cut = 0; cut <= request.length; cut += 7) {
    const client = new RawHttp(t, port);
    client.send(request.slice(0, cut));
    client.socket.end();
    await client.closed;
    client.socket.destroy();
  }
  for (const path of ['events', 'metrics', 'rpc']) {
    const client = new RawHttp(t, port);
    client.send(`GET /${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
    client.socket.resetAndDestroy();
  }
  t.equal((await ask(`${url}healthz`)).status, 200);
});

t.test('slow clients are told so, in the end', async (t) => {
  const { url, port } = await startHttp(t);
  const beginnings = [
    '',
    'GET /healthz HTTP/1.1\r\nHost: local',
    `${HEAD}Content-Length: 1000\r\n\r\n{`,
  ];
  const slow = beginnings.map((bytes) => {
    const client = new RawHttp(t, port);
    client.send(bytes);
    const drip = setInterval(() => client.send(bytes === '' ? '' : 'x'), 1500);
    return client.closed.then(() => {
      clearInterval(drip);
      return client.received;
    });
  });
  t.equal((await ask(`${url}healthz`)).status, 200, 'others are served meanwhile');
  for (const received of (await Promise.all(slow)).slice(1)) {
    t.match(received, /^HTTP\/1\.1 408 Request Timeout\r\n.*\{"error":"The request took too long/s);
  }
});

t.test('idle connections make room, the longest idle first', async (t) => {
  const { url, port } = await startHttp(t);
  const idle: RawHttp[] = [];
  for (let i = 0; i < MAX_HTTP_CONNECTIONS; i++) {
    const client = new RawHttp(t, port);
    idle.push(client);
    if (i % 3 === 1) {
      client.send('GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n');
      await client.until(/"ok"/);
    } else if (i % 3 === 2) {
      client.send('GET /heal');
    } else {
      await new Promise((resolve) => client.socket.once('connect', resolve));
    }
  }
  const closed: number[] = [];
  for (const [i, client] of idle.entries()) {
    void client.closed.then(() => closed.push(i));
  }
  for (let i = 0; i < 3; i++) {
    const probe = new RawHttp(t, port);
    probe.send('GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n');
    await probe.until(/"ok"/);
  }
  t.equal((await post(`${url}rpc`, CALL)).status, 200);
  while (closed.length < 4) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.strictSame(closed.slice(0, 2).sort(), [0, 1]);
});

t.test('more connections than there may be', async (t) => {
  let release = (): void => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  let waiting = 0;
  const hold = method({
    name: 'hold',
    summary: 'Answers when the test says so.',
    params: Type.Object({}),
    result: Type.Boolean(),
    call: async () => {
      waiting += 1;
      await held;
      return true;
    },
  });
  const ready = method({
    name: 'bdev_get_bdevs',
    summary: 'Answers at once.',
    params: Type.Object({}),
    result: Type.Boolean(),
    call: () => true,
  });
  t.teardown(release);
  const { url, port } = await startHttp(t, { dispatcher: new Dispatcher([hold, ready], log) });
  const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'hold' });
  const clients = Array.from({ length: MAX_HTTP_CONNECTIONS }, () => new RawHttp(t, port));
  for (const client of clients) {
    client.send(`${HEAD}Content-Length: ${body.length}\r\n\r\n${body}`);
  }
  while (waiting < MAX_HTTP_CONNECTIONS) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  const more = new RawHttp(t, port);
  await more.closed;
  t.equal(more.received, '');
  for (const client of clients) {
    client.socket.destroy();
  }
  for (;;) {
    // The server learns of it in its own time.
    const answer = await post(`${url}rpc`, CALL).catch(() => undefined);
    if (answer !== undefined) {
      t.equal(answer.status, 200);
      break;
    }
  }
});

t.test('a request under way when the server closes', async (t) => {
  const { url, server, target } = await startHttp(t);
  const waiting = post(`${url}rpc`, {
    jsonrpc: '2.0',
    id: 1,
    method: 'bdev_get_bdevs',
    params: { name: 'later', timeout: 60_000 },
  });
  // The server has it once it waits for a bdev.
  await post(`${url}rpc`, CALL);
  const closing = server.close();
  await target.target.createNull({ name: 'later' }, { blockSize: 512, numBlocks: 8 });
  t.match((await waiting).json, { result: [{ name: 'later' }] });
  await closing;
});
