/** The HTTP server for those who mean well: JSON-RPC, health, files, what it answers to what it does not know. */
import { request } from 'node:http';
import t from 'tap';
import type { PlaneMessage } from '../../src/reactor/control.ts';
import { ask, post, startHttp } from '../helpers/http.ts';
import { shortFolder } from '../helpers/rpc.ts';
import { Doorbell, doorbell } from '../helpers/rpc-process.ts';

t.test('JSON-RPC over HTTP', async (t) => {
  const { url } = await startHttp(t);
  const rpc = `${url}rpc`;
  const call = { jsonrpc: '2.0', id: 1, method: 'bdev_get_bdevs' };
  const create = {
    jsonrpc: '2.0',
    id: 'a',
    method: 'bdev_null_create',
    params: { name: 'n', num_blocks: 8, block_size: 512 },
  };

  t.test('a request', async (t) => {
    const answer = await post(rpc, call);
    t.equal(answer.status, 200);
    t.match(answer.headers.get('content-type'), 'application/json');
    t.equal(answer.headers.get('cache-control'), 'no-store');
    t.strictSame(answer.json, { jsonrpc: '2.0', id: 1, result: [] });
    const utf8 = await post(rpc, call, { 'Content-Type': 'application/json; charset=utf-8' });
    t.equal(utf8.status, 200);
  });
  t.test('an error is an answer', async (t) => {
    const { status, json } = await post(rpc, { ...call, params: { nome: 'x' } });
    t.equal(status, 200);
    t.match(json, {
      id: 1,
      error: { code: -32602, message: "Invalid parameters: unknown key 'nome'" },
    });
    t.match((await post(rpc, { ...call, method: 'no' })).json, { error: { code: -32601 } });
    t.match((await post(rpc, [])).json, { id: null, error: { code: -32600 } });
  });
  t.test('a batch', async (t) => {
    const { status, json } = await post(rpc, [create, { ...call, id: undefined }, call, 7]);
    t.equal(status, 200);
    t.match(json, [
      { id: 'a', result: 'n' },
      { id: 1, result: [{ name: 'n', num_blocks: 8 }] },
      { id: null, error: { code: -32600 } },
    ]);
  });
  t.test('notifications', async (t) => {
    for (const body of [{ ...call, id: undefined }, [{ ...call, id: undefined }]]) {
      const { status, text } = await post(rpc, body);
      t.equal(status, 204);
      t.equal(text, '');
    }
  });
  t.test('what is not one JSON value', async (t) => {
    const one = JSON.stringify(call);
    for (const body of [
      '',
      '{',
      'nonsense',
      `${one}${one}`,
      `${one}{`,
      '"\xff"',
      '['.repeat(100),
    ]) {
      const { status, json } = await post(rpc, body);
      t.equal(status, 400, JSON.stringify(body));
      t.match(json, { jsonrpc: '2.0', id: null, error: { code: -32700, message: /^Parse error/ } });
    }
    t.equal((await post(rpc, ` \n${one}\n `)).status, 200, 'white space around it');
  });
  t.test('a type that is not JSON', async (t) => {
    // All that a form of another site can send.
    for (const type of [
      'text/plain',
      'application/x-www-form-urlencoded',
      'multipart/form-data; boundary=x',
      'application/jsonx',
    ]) {
      const { status, json } = await post(rpc, call, { 'Content-Type': type });
      t.equal(status, 415, type);
      t.match(json, { error: 'Unsupported Media Type' });
    }
    t.equal((await ask(rpc, { method: 'POST' })).status, 400, 'no type, no body');
  });
  t.test('a request of 256 KiB, and one of a byte more', async (t) => {
    const padding = 256 * 1024 - JSON.stringify({ ...call, params: { name: '' } }).length;
    const exact = await post(rpc, { ...call, params: { name: 'x'.repeat(padding) } });
    t.match(exact.json, { error: { code: -19 } });
    const more = await post(rpc, { ...call, params: { name: 'x'.repeat(padding + 1) } });
    t.equal(more.status, 413);
    t.match(more.json, { error: 'Request body is too large' });
  });
  t.test('a watch needs another way', async (t) => {
    const { json } = await post(rpc, { ...call, method: 'doorbell_watch' });
    t.match(json, { error: { code: -32603, message: /Only a connection/ } });
  });
});

t.test('health', async (t) => {
  const { url, target } = await startHttp(t);
  const well = await ask(`${url}healthz`);
  t.equal(well.status, 200);
  t.strictSame(well.json, { status: 'ok' });
  // One that dies within its first second is not started again. The first may be older by now, the next ones are not.
  let ill = well;
  while (ill.status === 200) {
    const death = target.pool.request(0, undefined as unknown as PlaneMessage);
    await t.rejects(death, { name: 'ReactorLostError' });
    ill = await ask(`${url}healthz`);
  }
  t.equal(ill.status, 503);
  t.strictSame(ill.json, { status: 'reactor lost' });
});

t.test('files', async (t) => {
  const { url } = await startHttp(t);
  const file = `${url}uplot/uPlot.iife.min.js`;
  const { status, headers, text } = await ask(file);
  t.equal(status, 200);
  t.match(text, /uPlot/);
  t.equal(headers.get('content-type'), 'text/javascript; charset=utf-8');
  t.equal(headers.get('cache-control'), 'no-cache');
  const etag = headers.get('etag') ?? '';
  t.match(etag, /^"[\w-]{27}"$/);
  for (const tag of [etag, `W/${etag}`, `"other", ${etag}`, '*']) {
    const same = await ask(file, { headers: { 'If-None-Match': tag } });
    t.equal(same.status, 304, tag);
    t.equal(same.text, '');
    t.equal(same.headers.get('etag'), etag);
  }
  t.equal((await ask(file, { headers: { 'If-None-Match': '"other"' } })).status, 200);
  const head = await ask(file, { method: 'HEAD' });
  t.equal(head.status, 200);
  t.equal(head.headers.get('content-length'), String(Buffer.byteLength(text)));
  t.equal(head.text, '');
});

t.test('every answer keeps browsers from harm', async (t) => {
  const { url } = await startHttp(t);
  for (const path of [
    'healthz',
    'uplot/uPlot.min.css',
    'none',
    'rpc',
    'metrics',
    'session',
    '%zz',
  ]) {
    const { headers } = await ask(url + path);
    const policy = headers.get('content-security-policy') ?? '';
    t.match(policy, "default-src 'none'; script-src 'self'; style-src 'self'; ", path);
    t.notMatch(policy, /unsafe|https?:|\*/, path);
    t.equal(headers.get('x-content-type-options'), 'nosniff', path);
    t.equal(headers.get('x-frame-options'), 'DENY', path);
    t.equal(headers.get('access-control-allow-origin'), null, path);
    t.equal(headers.get('server'), null, path);
  }
});

t.test('paths and methods that are not there', async (t) => {
  const { url, port } = await startHttp(t);
  for (const path of ['none', 'rpc/', 'dashboard/server.ts', '..%2f..%2fpackage.json', '%zz']) {
    const { status, json } = await ask(url + path);
    t.equal(status, path === '%zz' ? 400 : 404, path);
    t.match(json, { error: String });
  }
  const raw = await new Promise<number | undefined>((resolve, reject) => {
    const options = { host: '127.0.0.1', port, path: '/uplot/../../../../package.json' };
    request(options, ({ statusCode }) => resolve(statusCode))
      .on('error', reject)
      .end();
  });
  t.equal(raw, 404, 'a path that climbs');
  for (const [path, method, allow] of [
    ['rpc', 'GET', 'POST'],
    ['rpc', 'OPTIONS', 'POST'],
    ['events', 'POST', 'GET'],
    ['events', 'HEAD', 'GET'],
    ['metrics', 'DELETE', 'GET, HEAD'],
  ] as const) {
    const answer = await ask(url + path, { method });
    t.equal(answer.status, 405, `${method} ${path}`);
    t.equal(answer.headers.get('allow'), allow);
  }
  for (const path of [':x(', 'a*b', ':(', '*', '(']) {
    t.equal((await ask(url + path)).status, 404, `${path} is no pattern`);
  }
});

t.test('doorbell serve --http', async (t) => {
  const folder = shortFolder(t);
  const place = ['--rpc-socket', `${folder}/rpc`, '--socket-dir', folder, '--log-level', 'warn'];
  const serve = (...args: string[]) => new Doorbell(['serve', ...place, ...args]);
  const off = serve();
  t.teardown(() => off.child.kill('SIGKILL'));
  await off.printed(/No disks yet/);
  off.child.kill('SIGTERM');
  t.notMatch((await off.outcome).stdout, 'HTTP:', 'off by default');

  const on = serve('--http', '0');
  t.teardown(() => on.child.kill('SIGKILL'));
  const [, url] = await on.printed(/^HTTP: +(http:\/\/127\.0\.0\.1:\d+\/)$/m);
  t.equal((await ask(`${url}healthz`)).status, 200);
  const taken = await doorbell([
    'serve',
    ...place,
    '-r',
    `${folder}/2`,
    '--http',
    new URL(url).port,
  ]);
  t.match(taken, { code: 1, stderr: /Address already in use: --http 127\.0\.0\.1:\d+/ });
  // A client that stays connected does not hold up the end.
  const events = await fetch(`${url}events`);
  on.child.kill('SIGTERM');
  t.match(await on.outcome, { code: 0 });
  await events.text().catch(() => {});
});

t.test('what --http refuses', async (t) => {
  const folder = shortFolder(t);
  const place = ['--rpc-socket', `${folder}/rpc`, '--socket-dir', folder, '--log-level', 'warn'];
  for (const [args, message] of [
    [
      ['--http', '0.0.0.0:0'],
      /--http 0\.0\.0\.0:0 can be reached from other machines: it needs --http-token-file/,
    ],
    [['--http', 'example.com:80'], /example\.com is not an IP address/],
    [['--http', '0', '--http-token-file', `${folder}/none`], /No such file or directory/],
    [['--http', '0', '--http-origin', 'doorbell.example'], /address of a site/],
  ] as const) {
    const { code, stdout, stderr } = await doorbell(['serve', ...place, ...args]);
    t.ok(code === 1 || code === 2, `exit code ${code}`);
    t.equal(stdout, '');
    t.match(stderr, message);
  }
});
