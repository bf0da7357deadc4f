/** How a connection to an NBD server is made: addresses, real servers, and servers that are none, silent, or say too much. */

import { once } from 'node:events';
import { closeSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { NbdDialer } from '../../src/bdev/nbd/dial.ts';
import { parseNbdUri } from '../../src/bdev/nbd/uri.ts';
import { native } from '../../src/native/index.ts';
import { ExportFlag, NBD_MAGIC, NbdGreeting, OPTION_MAGIC } from '../../src/spec/nbd.ts';
import { NbdServer, noNbdkit, noQemuNbd } from '../helpers/nbd-server.ts';

const MIB = 1024 * 1024;

t.test('the address of an export', async (t) => {
  t.same(parseNbdUri('nbd://example.org'), {
    address: { kind: 'tcp', host: 'example.org', port: '10809' },
    exportName: '',
  });
  t.same(parseNbdUri('nbd://[::1]:5000/a%20disk/1'), {
    address: { kind: 'tcp', host: '::1', port: '5000' },
    exportName: 'a disk/1',
  });
  t.same(parseNbdUri('nbd+unix:///x?socket=/run/nbd.sock'), {
    address: { kind: 'unix', path: '/run/nbd.sock' },
    exportName: 'x',
  });
  for (const [uri, words] of [
    ['/run/nbd.sock', /must be nbd:/],
    ['http://example.org/', /must begin with/],
    ['nbds://example.org/', /TLS is not supported/],
    ['nbd:///x', /no host/],
    ['nbd://me@example.org/', /must not name a user/],
    ['nbd://example.org/?a=b', /nothing after/],
    ['nbd+unix:///x', /needs 'socket'/],
    ['nbd+unix:///x?socket=nbd.sock', /absolute path/],
    ['nbd+unix://host/x?socket=/s', /must not have a host/],
    [`nbd+unix:///x?socket=/${'s'.repeat(107)}`, /at most 107 bytes/],
    ['nbd://h/%ff', /code of UTF-8/],
    [`nbd://h/${'x'.repeat(4097)}`, /more than 4096 bytes/],
  ] as const) {
    t.throws(() => parseNbdUri(uri), { name: 'InvalidError', message: words }, uri);
  }
});

t.test('nbdkit', { skip: noNbdkit }, async (t) => {
  const server = await NbdServer.nbdkit(t, 'memory', '64M');
  const { fd, told } = await new NbdDialer(parseNbdUri(server.uri())).dial(5000);
  closeSync(fd);
  t.match(told, { size: 64 * MIB, structured: true });
  const { SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES, CAN_MULTI_CONN } = ExportFlag;
  const all = SEND_FLUSH | SEND_FUA | SEND_TRIM | SEND_WRITE_ZEROES | CAN_MULTI_CONN;
  t.equal(told.flags & all, all);
  t.equal(told.flags & ExportFlag.READ_ONLY, 0);
});

t.test('block sizes of nbdkit', { skip: noNbdkit }, async (t) => {
  const policy = ['blocksize-minimum=4K', 'blocksize-preferred=64K', 'blocksize-maximum=128K'];
  const server = await NbdServer.nbdkit(t, '-r', '--filter=blocksize-policy', 'memory', '1M', ...policy); // biome-ignore format: a command
  const { fd, told } = await new NbdDialer(parseNbdUri(server.uri())).dial(5000);
  closeSync(fd);
  t.match(told, { minimum: 4096, preferred: 65_536, maximum: 131_072 });
  t.not(told.flags & ExportFlag.READ_ONLY, 0);
});

t.test('qemu-nbd, and an export that it does not have', { skip: noQemuNbd }, async (t) => {
  const server = await NbdServer.qemuNbd(t, '-e', '4', '-x', 'mine', '--image-opts', 'driver=null-co,size=1M,read-zeroes=on'); // biome-ignore format: a command
  const { fd, told } = await new NbdDialer(parseNbdUri(server.uri('mine'))).dial(5000);
  closeSync(fd);
  t.match(told, { size: MIB, structured: true });
  await t.rejects(new NbdDialer(parseNbdUri(server.uri('other'))).dial(5000), {
    code: 'ENOENT',
    message: /no such export: the server says ".*other.*"/,
  });
});

/** A server that does what it is told with each connection. */
async function serve(t: Test, talk: (socket: Socket) => void): Promise<NbdDialer> {
  const folder = mkdtempSync(join(tmpdir(), 'db-nbd-'));
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    talk(socket);
  });
  const path = join(folder, 'sock');
  server.listen(path);
  await once(server, 'listening');
  t.teardown(() => {
    for (const socket of sockets) {
      socket.destroy();
    }
    server.close();
    rmSync(folder, { recursive: true });
  });
  return new NbdDialer(parseNbdUri(`nbd+unix:///?socket=${path}`));
}

const GREETING = NbdGreeting.encode({
  magicHigh: NBD_MAGIC[0],
  magicLow: NBD_MAGIC[1],
  optionHigh: OPTION_MAGIC[0],
  optionLow: OPTION_MAGIC[1],
  flags: 3,
});

/** The greeting; then each answer for an option that comes, whatever it is. */
const answering =
  (...answers: readonly Uint8Array[]) =>
  (socket: Socket) => {
    const left = [...answers];
    let received = 0;
    socket.write(GREETING);
    socket.on('data', (data) => {
      received += data.length;
      for (const answer of received >= 20 ? left.splice(0) : []) {
        socket.write(answer);
      }
    });
  };

/** A reply to an option. */
function reply(
  option: number,
  type: number,
  data: Uint8Array = Buffer.alloc(0),
  length = data.length,
) {
  const head = Buffer.alloc(20);
  head.writeUInt32BE(0x0003_e889, 0);
  head.writeUInt32BE(0x0455_65a9, 4);
  head.writeUInt32BE(option, 8);
  head.writeUInt32BE(type, 12);
  head.writeUInt32BE(length, 16);
  return Buffer.concat([head, data]);
}

t.test('servers that are not as they should be', async (t) => {
  const size = Buffer.alloc(12);
  size.writeBigUInt64BE(1n << 60n, 2);
  const small = Buffer.alloc(12);
  small.writeBigUInt64BE(4096n, 2);
  const sizes = Buffer.alloc(14);
  sizes.writeUInt16BE(3);
  sizes.writeUInt32BE(513, 2);
  const ack = reply(8, 1);
  const cases: Record<string, [(socket: Socket) => void, { code: string; message?: RegExp }]> = {
    'says nothing': [() => {}, { code: 'ETIMEDOUT' }],
    'ends at once': [(socket) => socket.end(), { code: 'ECONNRESET' }],
    'speaks something else': [
      (socket) => socket.write('SSH-2.0-OpenSSH_9.6p1 and so on\r\n'),
      { code: 'EPROTO', message: /begins with something else/ },
    ],
    'knows only the old handshake': [
      (socket) => socket.write(Buffer.concat([GREETING.subarray(0, 16), Buffer.alloc(2)])),
      { code: 'EPROTO', message: /old handshake/ },
    ],
    'answers something else': [
      answering(reply(3, 1)),
      { code: 'EPROTO', message: /something else/ },
    ],
    'has a long answer': [
      answering(reply(8, 1, Buffer.alloc(0), 0xffff_ffff)),
      { code: 'EPROTO', message: /an answer of 4294967295 bytes/ },
    ],
    'does not tell the size': [
      answering(ack, reply(7, 1)),
      { code: 'EPROTO', message: /the size/ },
    ],
    'has a size that is none': [
      answering(ack, reply(7, 3, size)),
      { code: 'EPROTO', message: /2\^53/ },
    ],
    'has odd block sizes': [
      answering(ack, reply(7, 3, sizes)),
      { code: 'EPROTO', message: /block sizes of 513/ },
    ],
    'does not end': [
      answering(ack, ...Array.from({ length: 65 }, () => reply(7, 3, small))),
      { code: 'EPROTO', message: /no end/ },
    ],
    'goes on unasked': [
      answering(ack, Buffer.concat([reply(7, 3, small), reply(7, 1), Buffer.from('x')])),
      { code: 'EPROTO', message: /nobody asked for/ },
    ],
    'asks for TLS': [
      answering(reply(8, 0x8000_0005, Buffer.from('\u001b[31mencrypt, "please"'))),
      { code: 'EACCES', message: /TLS.*says "\?\[31mencrypt, "please""/ },
    ],
    'does not want us': [
      answering(ack, reply(7, 0x8000_0002, Buffer.from('x'.repeat(5000)))),
      { code: 'EPERM', message: /x{200}"$/ },
    ],
  };
  for (const [name, [talk, error]] of Object.entries(cases)) {
    const dialer = await serve(t, talk);
    await t.rejects(dialer.dial(300), error, name);
  }
});

t.test('addresses where nobody is', async (t) => {
  const nobody = new NbdDialer(parseNbdUri('nbd+unix:///?socket=/nonexistent/nbd.sock'));
  await t.rejects(nobody.dial(1000), { code: 'ENOENT', message: /nonexistent/ });
  const refused = new NbdDialer(parseNbdUri('nbd://127.0.0.1:1/'));
  await t.rejects(refused.dial(1000), { code: 'ECONNREFUSED', message: /127\.0\.0\.1:1/ });
  const unknown = new NbdDialer(parseNbdUri('nbd://no-such-host.invalid/'));
  await t.rejects(unknown.dial(3000), { message: /no-such-host\.invalid:10809/ });
});

t.test('over TCP', async (t) => {
  const server = createServer((socket) => socket.end('hello'));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const { port } = server.address() as { port: number };
  const fd = await native.blocking.connectTcp('localhost', String(port), 1000);
  t.teardown(() => closeSync(fd));
  const buffer = Buffer.alloc(8);
  let count = -1;
  while (count < 0) {
    await new Promise((resolve) => setImmediate(resolve));
    count = native.socketReceive(fd, buffer, new Int32Array(254));
  }
  t.equal(buffer.toString('utf8', 0, count), 'hello');
  t.throws(() => native.blocking.connectTcp('x'.repeat(256), '1', 1), { name: 'RangeError' });
  t.throws(() => native.blocking.connectUnix('', 1), { name: 'RangeError' });
});
