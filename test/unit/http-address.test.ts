/** Where the HTTP server listens. */
import t from 'tap';
import { authority, isLoopback, parseHttpAddress, parseOrigin } from '../../src/http/address.ts';

t.test('addresses', async (t) => {
  for (const [text, host, port] of [
    ['9000', '127.0.0.1', 9000],
    ['0', '127.0.0.1', 0],
    ['127.0.0.1:80', '127.0.0.1', 80],
    ['localhost:80', '127.0.0.1', 80],
    ['0.0.0.0:65535', '0.0.0.0', 65535],
    ['[::1]:80', '::1', 80],
    ['[::]:80', '::', 80],
  ] as const) {
    t.strictSame(parseHttpAddress(text), { host, port }, text);
  }
  for (const text of [
    '',
    ':80',
    '65536',
    '-1',
    '1.5',
    'example.com:80',
    '127.0.0.1',
    '127.0.0.1:',
    '::1:80',
    '[127.0.0.1]:80',
    '[::1]',
    '[]:80',
    '1.2.3:80',
    'http://127.0.0.1:80',
    '80 ',
  ]) {
    t.throws(() => parseHttpAddress(text), { message: /\.$/ }, JSON.stringify(text));
  }
  t.equal(authority({ host: '::1', port: 1 }), '[::1]:1');
  t.equal(authority({ host: '127.0.0.1', port: 1 }), '127.0.0.1:1');
});

t.test('what only this machine can reach', async (t) => {
  for (const host of ['127.0.0.1', '127.255.0.1', '::1']) {
    t.ok(isLoopback(host), host);
  }
  for (const host of ['0.0.0.0', '::', '10.0.0.1', '127.example', '::ffff:127.0.0.1', '']) {
    t.notOk(isLoopback(host), host);
  }
});

t.test('origins', async (t) => {
  t.equal(parseOrigin('https://Doorbell.example'), 'https://doorbell.example');
  t.equal(parseOrigin('https://a.example:443/'), 'https://a.example');
  t.equal(parseOrigin('http://a.example:8080'), 'http://a.example:8080');
  for (const text of [
    'a.example',
    'https://a.example/x',
    'ftp://a.example',
    'https://u@a.example',
    '',
  ]) {
    t.throws(() => parseOrigin(text), { message: /address of a site/ }, text);
  }
});
