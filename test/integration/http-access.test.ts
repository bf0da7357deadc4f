/** Who may talk to the HTTP server: tokens, sessions of browsers, and pages of other sites. */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import t from 'tap';
import { readTokenFile } from '../../src/http/access.ts';
import { HttpServer } from '../../src/http/server.ts';
import { ask, post, RawHttp, SseClient, startHttp } from '../helpers/http.ts';
import { shortFolder } from '../helpers/rpc.ts';

const TOKEN = 'correct-horse-battery-staple';
const CALL = { jsonrpc: '2.0', id: 1, method: 'bdev_get_bdevs' };

/** A request with any headers: fetch keeps Host, Origin and Sec-Fetch-Site to itself. Resolves with the status. */
function send(
  port: number,
  path: string,
  headers: Readonly<Record<string, string>>,
  body?: string,
): Promise<number> {
  const method = body === undefined ? 'GET' : 'POST';
  const json = body === undefined ? {} : { 'Content-Type': 'application/json' };
  return new Promise((resolve, reject) => {
    request(
      { host: '127.0.0.1', port, path, method, headers: { ...json, ...headers } },
      (answer) => {
        resolve(answer.statusCode ?? 0);
        answer.destroy();
      },
    )
      .on('error', reject)
      .end(body);
  });
}

const call = JSON.stringify(CALL);

t.test('without a token: names of this machine only (DNS rebinding)', async (t) => {
  const { port } = await startHttp(t);
  for (const Host of [
    `127.0.0.1:${port}`,
    `localhost:${port}`,
    'localhost',
    'LOCALHOST:9999',
    '127.1.2.3',
    '[::1]:80',
  ]) {
    t.equal(await send(port, '/rpc', { Host }, call), 200, Host);
  }
  for (const Host of [
    'evil.example',
    `evil.example:${port}`,
    `localhost.evil.example:${port}`,
    `127.0.0.1.evil.example`,
    'localhost@evil.example',
    '192.168.1.1',
    '0.0.0.0',
    '[::2]',
    '2130706433',
  ]) {
    for (const path of ['/metrics', '/healthz', '/events', '/uplot/uPlot.min.css']) {
      t.equal(await send(port, path, { Host }), 403, `${path} of ${Host}`);
    }
    t.equal(await send(port, '/rpc', { Host }, call), 403, Host);
  }
  const nameless = new RawHttp(t, port);
  nameless.send('GET /metrics HTTP/1.0\r\n\r\n');
  await nameless.until(/^HTTP\/1\.1 403 /);
});

t.test('a page of another site does nothing (CSRF)', async (t) => {
  const { port, target } = await startHttp(t);
  const make = JSON.stringify({
    ...CALL,
    method: 'bdev_null_create',
    params: { name: 'forged', num_blocks: 8, block_size: 512 },
  });
  for (const Origin of [
    'http://evil.example',
    'https://evil.example',
    'null',
    'http://localhost:1',
    `http://127.0.0.2:${port}`,
    `http://127.0.0.1:${port}.evil.example`,
    '',
  ]) {
    for (const path of ['/rpc', '/login', '/logout']) {
      t.equal(await send(port, path, { Origin }, make), 403, `${path} from ${Origin}`);
    }
  }
  for (const site of ['cross-site', 'same-site']) {
    t.equal(await send(port, '/rpc', { 'Sec-Fetch-Site': site }, make), 403, site);
    t.equal(await send(port, '/events', { 'Sec-Fetch-Site': site }), 403, site);
  }
  t.equal(target.target.bdevs.find('forged'), undefined);
  const own = { Origin: `http://127.0.0.1:${port}`, 'Sec-Fetch-Site': 'same-origin' };
  t.equal(await send(port, '/rpc', own, make), 200);
  t.ok(target.target.bdevs.find('forged'));
  t.equal(await send(port, '/events', { 'Sec-Fetch-Site': 'none' }), 200);
});

t.test('a reverse proxy', async (t) => {
  const { port } = await startHttp(t, { origins: ['https://doorbell.example'] });
  const Origin = 'https://doorbell.example';
  t.equal(await send(port, '/rpc', { Host: 'doorbell.example', Origin }, call), 200);
  t.equal(await send(port, '/rpc', { Origin }, call), 200, 'one that does not pass Host on');
  t.equal(await send(port, '/rpc', { Host: 'other.example', Origin }, call), 403);
  t.equal(await send(port, '/rpc', { Origin: 'http://doorbell.example' }, call), 403);
});

t.test('a token', async (t) => {
  const { url, port } = await startHttp(t, { token: TOKEN });
  const bearer = { Authorization: `Bearer ${TOKEN}` };
  for (const path of ['metrics', 'events']) {
    const { status, headers, json } = await ask(url + path);
    t.equal(status, 401, path);
    t.equal(headers.get('www-authenticate'), 'Bearer');
    t.strictSame(json, { error: 'A token is needed' });
  }
  t.equal((await post(`${url}rpc`, CALL)).status, 401);
  for (const wrong of [
    'Bearer',
    'Bearer x',
    `Bearer ${TOKEN}x`,
    `Basic ${TOKEN}`,
    TOKEN,
    'Bearer ',
  ]) {
    const { status } = await post(`${url}rpc`, CALL, { Authorization: wrong });
    t.equal(status, 401, wrong);
  }
  t.equal((await post(`${url}rpc`, CALL, bearer)).status, 200);
  t.equal((await ask(`${url}metrics`, { headers: bearer })).status, 200);
  const events = await SseClient.connect(t, `${url}events`, bearer);
  t.match(await events.next('snapshot'), { data: { pid: process.pid } });
  t.equal((await ask(`${url}healthz`)).status, 200, 'for probes');
  t.equal((await ask(`${url}uplot/uPlot.min.css`)).status, 200, 'for the page that asks for it');
  t.equal(await send(port, '/rpc', { ...bearer, Host: 'any.example' }, call), 200, 'any name');
  t.equal(await send(port, '/rpc', { ...bearer, Origin: 'http://evil.example' }, call), 403);
  const reading = post(`${url}rpc`, 'x'.repeat(300_000));
  t.equal((await reading.catch(() => ({ status: 401 }))).status, 401, 'nothing is read before');
});

t.test('a browser logs in', async (t) => {
  const { url, port } = await startHttp(t, { token: TOKEN });
  t.strictSame((await ask(`${url}session`)).json, { tokenNeeded: true, open: false });
  for (const wrong of [{ token: 'x' }, {}, { token: 1 }, []]) {
    const { status, headers } = await post(`${url}login`, wrong);
    t.equal(status, 401, JSON.stringify(wrong));
    t.equal(headers.get('set-cookie'), null);
  }
  for (const text of ['{', 'null', '"text"', '']) {
    t.equal((await post(`${url}login`, text)).status, 400, text);
  }
  t.equal((await post(`${url}login`, { token: 'x'.repeat(10_000) })).status, 413);

  const login = await post(`${url}login`, { token: TOKEN });
  t.equal(login.status, 204);
  const header = login.headers.get('set-cookie') ?? '';
  t.match(
    header,
    /^doorbell\d+=\d+\.[\w-]{43}; Path=\/; Max-Age=43200; HttpOnly; SameSite=Strict$/,
  );
  t.notMatch(header, TOKEN);
  const Cookie = header.replace(/;.*/, '');
  t.match(Cookie, `doorbell${port}=`);
  const get = (path: string, cookie: string) => ask(url + path, { headers: { Cookie: cookie } });
  t.strictSame((await get('session', Cookie)).json, { tokenNeeded: true, open: true });
  t.equal((await get('metrics', `other=1; ${Cookie}; more=2`)).status, 200);
  t.equal((await post(`${url}rpc`, CALL, { Cookie })).status, 200);
  const events = await SseClient.connect(t, `${url}events`, { Cookie });
  t.match(await events.next('snapshot'), { data: { pid: process.pid } });

  const [name, value] = Cookie.split('=');
  const [expires, signature] = value.split('.');
  for (const forged of [
    '',
    '.',
    `${Number(expires) + 1}.${signature}`,
    `1.${signature}`,
    `${expires}.${'A'.repeat(43)}`,
    `${expires}.${signature}A`,
    `${expires}.`,
  ]) {
    t.equal((await get('metrics', `${name}=${forged}`)).status, 401, forged);
  }
  const other = await startHttp(t, { token: TOKEN });
  t.equal(
    (await ask(`${other.url}metrics`, { headers: { Cookie: `doorbell${other.port}=${value}` } }))
      .status,
    401,
    'sessions end with the server',
  );
  const logout = await post(`${url}logout`, {});
  t.equal(logout.status, 204);
  t.match(logout.headers.get('set-cookie'), /^doorbell\d+=; Path=\/; Max-Age=0; /);
});

t.test('without a token there is nothing to log in to', async (t) => {
  const { url } = await startHttp(t);
  t.strictSame((await ask(`${url}session`)).json, { tokenNeeded: false, open: true });
  t.equal((await post(`${url}login`, { token: '' })).status, 401);
});

t.test('addresses', async (t) => {
  const v6 = await startHttp(t, { address: { host: '::1', port: 0 } });
  t.match(v6.url, /^http:\/\/\[::1\]:\d+\/$/);
  t.equal((await post(`${v6.url}rpc`, CALL)).status, 200);
  const everywhere = await startHttp(t, { address: { host: '0.0.0.0', port: 0 }, token: TOKEN });
  const client = new RawHttp(t, everywhere.port);
  client.send('GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n');
  await client.until(/^HTTP\/1\.1 401 Unauthorized\r\n/);
  const { server: _, ...used } = v6;
  for (const host of ['0.0.0.0', '::', '192.0.2.1', '::ffff:127.0.0.1']) {
    const { events } = used.target.target;
    const options = { address: { host, port: 0 }, events } as Parameters<
      typeof HttpServer.listen
    >[0];
    await t.rejects(HttpServer.listen(options), { name: 'InvalidError', message: /token/ }, host);
  }
});

t.test('token files', async (t) => {
  const folder = shortFolder(t);
  const file = join(folder, 'token');
  const read = (text: string, mode = 0o600) => {
    writeFileSync(file, text);
    chmodSync(file, mode);
    return readTokenFile(file);
  };
  t.equal(read(TOKEN), TOKEN);
  t.equal(read(`${TOKEN}\n`), TOKEN);
  t.equal(read(`${TOKEN}\r\n`, 0o400), TOKEN);
  for (const mode of [0o640, 0o604, 0o644, 0o660, 0o601]) {
    t.throws(() => read(TOKEN, mode), { name: 'InvalidError', message: /open to other users/ });
  }
  for (const text of ['', '\n', 'too-short', `${TOKEN} x`, `${TOKEN}\nmore`, `${TOKEN}é`]) {
    t.throws(() => read(text), { name: 'InvalidError', message: /must hold one line/ }, text);
  }
  t.throws(() => read('x'.repeat(5000)), { message: /longer than 4096 bytes/ });
  t.throws(() => readTokenFile(join(folder, 'none')), { message: /No such file or directory/ });
  mkdirSync(join(folder, 'folder'), { mode: 0o700 });
  t.throws(() => readTokenFile(join(folder, 'folder')), { name: 'InvalidError' });
});
