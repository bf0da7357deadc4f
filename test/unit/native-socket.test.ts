/** The addon's UNIX sockets: bytes, descriptors, what does not fit, and no descriptor ever lost. */
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  fstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { native } from '../../src/native/index.ts';

const directory = mkdtempSync(join(tmpdir(), 'doorbell-'));
t.teardown(() => rmSync(directory, { recursive: true }));

const openDescriptors = () => readdirSync('/proc/self/fd').length;
const flags = (fd: number) =>
  Number.parseInt(/flags:\s+(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))![1], 8);
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;

t.test('listen, connect, accept, and the end of the stream', async (t) => {
  const path = join(directory, 'a.sock');
  const mask = process.umask(0);
  const listener = native.socketListen(path, 8);
  process.umask(mask);
  t.equal(statSync(path).mode & 0o777, 0o600, 'only for the owner, whatever the umask');
  t.equal(native.socketAccept(listener), -1, 'nobody waits');
  const client = native.socketConnect(path);
  const server = native.socketAccept(listener);
  for (const fd of [listener, client, server]) {
    t.equal(flags(fd) & (O_NONBLOCK | O_CLOEXEC), O_NONBLOCK | O_CLOEXEC);
  }
  t.equal(native.socketAccept(listener), -1);

  const buffer = Buffer.alloc(16);
  const fds = new Int32Array(254);
  t.equal(native.socketReceive(server, buffer, fds), -1, 'would block');
  t.equal(native.socketSend(client, Buffer.from('hello'), []), 5);
  t.equal(native.socketReceive(server, buffer, fds), 5);
  t.equal(buffer.toString('latin1', 0, 5), 'hello');
  t.equal(fds[0], 0);
  closeSync(client);
  t.equal(native.socketReceive(server, buffer, fds), 0, 'the end');
  t.throws(() => native.socketSend(server, Buffer.from('x'), []), {
    code: 'EPIPE',
    errno: 32,
    syscall: 'sendmsg',
  });

  t.throws(() => native.socketListen(path, 8), { code: 'EADDRINUSE', syscall: 'bind' });
  closeSync(server);
  closeSync(listener);
  t.throws(
    () => native.socketListen(path, 8),
    { code: 'EADDRINUSE' },
    'a stale path is the caller’s',
  );
  t.throws(() => native.socketConnect(path), { code: 'ECONNREFUSED', syscall: 'connect' });
  t.throws(() => native.socketConnect(join(directory, 'none')), { code: 'ENOENT' });
  t.throws(() => native.socketAccept(listener), { code: 'EBADF', syscall: 'accept4' });
});

t.test('paths are checked, and nothing leaks on the way', async (t) => {
  const before = openDescriptors();
  for (const call of [
    (path: string) => native.socketListen(path, 1),
    (path: string) => native.socketConnect(path),
  ]) {
    t.throws(() => call(''), { code: 'ERR_OUT_OF_RANGE' });
    t.throws(() => call(`/${'x'.repeat(107)}`), { code: 'ERR_OUT_OF_RANGE' });
    t.throws(() => call('\0abstract'), { code: 'ERR_OUT_OF_RANGE' });
    t.throws(() => call(7 as unknown as string), { code: 'ERR_INVALID_ARG_TYPE' });
    t.throws(() => call('/nonexistent/directory/x.sock'), { code: 'ENOENT' });
  }
  t.throws(() => native.socketListen(join(directory, 'b'), 0), { code: 'ERR_OUT_OF_RANGE' });
  writeFileSync(join(directory, 'file'), '');
  t.throws(() => native.socketConnect(join(directory, 'file')), { code: 'ECONNREFUSED' });
  t.equal(openDescriptors(), before);
  const longest = join(directory, 'y'.repeat(107 - directory.length - 1));
  t.equal(longest.length, 107);
  const listener = native.socketListen(longest, 1);
  closeSync(native.socketConnect(longest));
  closeSync(listener);
});

t.test('a full backlog makes connect fail in the end', async (t) => {
  const path = join(directory, 'full.sock');
  const listener = native.socketListen(path, 1);
  const clients: number[] = [];
  t.throws(
    () => {
      for (let i = 0; i < 10; i++) clients.push(native.socketConnect(path));
    },
    { code: 'EAGAIN', syscall: 'connect' },
  );
  for (const fd of [...clients, listener]) closeSync(fd);
});

t.test('253 descriptors travel with their first byte', async (t) => {
  const [a, b] = native.socketPair();
  const before = openDescriptors();
  const events = Array.from({ length: 253 }, () => native.eventfdCreate());
  t.equal(native.socketSend(a, Buffer.from('fds'), events), 3);
  t.equal(native.socketSend(a, Buffer.from('more'), []), 4);
  const buffer = Buffer.alloc(100);
  const fds = new Int32Array(254);
  let received = native.socketReceive(b, buffer, fds);
  t.equal(fds[0], 253);
  while (received < 7) {
    const more = new Int32Array(254);
    received += native.socketReceive(b, buffer.subarray(received), more);
    t.equal(more[0], 0);
  }
  t.equal(buffer.toString('latin1', 0, 7), 'fdsmore');
  for (let i = 0; i < 253; i++) {
    const fd = fds[i + 1];
    if ((flags(fd) & O_CLOEXEC) === 0) t.fail('not close-on-exec');
    native.eventfdSignal(events[i]);
    if (native.eventfdRead(fd) !== 1) t.fail('not the same eventfd');
  }
  for (const fd of [...events, ...fds.subarray(1)]) closeSync(fd);
  // But for one of this thread's, from its first signal on.
  t.equal(openDescriptors(), before + 1);
  closeSync(a);
  closeSync(b);
});

t.test('two messages with descriptors do not run together', async (t) => {
  const [a, b] = native.socketPair();
  const event = native.eventfdCreate();
  native.socketSend(a, Buffer.from('one'), [event]);
  native.socketSend(a, Buffer.from('two'), [event, event]);
  const buffer = Buffer.alloc(100);
  const fds = new Int32Array(254);
  t.equal(native.socketReceive(b, buffer, fds), 3);
  t.equal(fds[0], 1);
  closeSync(fds[1]);
  t.equal(native.socketReceive(b, buffer, fds), 3);
  t.equal(fds[0], 2);
  for (const fd of [a, b, event, fds[1], fds[2]]) closeSync(fd);
});

t.test('a large message is sent and received in parts', async (t) => {
  const [a, b] = native.socketPair();
  const data = Buffer.alloc(4 * 2 ** 20);
  for (let i = 0; i < data.length; i += 4) data.writeUInt32LE(i, i);
  const copy = Buffer.alloc(data.length);
  const fds = new Int32Array(254);
  const event = native.eventfdCreate();
  let sent = 0;
  let received = 0;
  let short = 0;
  let blocked = 0;
  let descriptors = 0;
  while (received < data.length) {
    while (sent < data.length) {
      const count = native.socketSend(a, data.subarray(sent), sent === 0 ? [event] : []);
      if (count < 0) {
        blocked += 1;
        break;
      }
      if (count < data.length - sent) short += 1;
      sent += count;
    }
    const count = native.socketReceive(b, copy.subarray(received, received + 100_000), fds);
    if (count > 0) received += count;
    for (let i = 1; i <= fds[0]; i++) {
      closeSync(fds[i]);
      descriptors += 1;
    }
  }
  t.ok(short > 0 && blocked > 0, 'it did not fit at once');
  t.equal(descriptors, 1, 'the descriptor came once');
  t.ok(copy.equals(data));
  for (const fd of [a, b, event]) closeSync(fd);
});

t.test('arguments are checked before anything is received or sent', async (t) => {
  const [a, b] = native.socketPair();
  const before = openDescriptors();
  const event = native.eventfdCreate();
  const data = Buffer.from('x');
  const fds = new Int32Array(254);
  t.throws(() => native.socketSend(a, data, new Array(254).fill(event)), {
    code: 'ERR_OUT_OF_RANGE',
  });
  t.throws(() => native.socketSend(a, Buffer.alloc(0), [event]), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => native.socketSend(a, data, [-1]), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => native.socketSend(a, data, ['1' as unknown as number]), {
    code: 'ERR_INVALID_ARG_TYPE',
  });
  t.throws(() => native.socketSend(a, data, event as unknown as number[]), {
    code: 'ERR_INVALID_ARG_TYPE',
  });
  t.throws(() => native.socketSend(a, 'x' as unknown as Buffer, []), {
    code: 'ERR_INVALID_ARG_TYPE',
  });
  t.throws(() => native.socketSend(a, data, [100_000]), { code: 'EBADF', syscall: 'sendmsg' });
  const hostile = [0];
  Object.defineProperty(hostile, 0, {
    get() {
      throw new Error('from the getter');
    },
  });
  t.throws(() => native.socketSend(a, data, hostile), { message: 'from the getter' });

  native.socketSend(a, data, [event]);
  t.throws(() => native.socketReceive(b, Buffer.alloc(8), new Int32Array(253)), {
    code: 'ERR_OUT_OF_RANGE',
  });
  t.throws(() => native.socketReceive(b, Buffer.alloc(0), fds), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => native.socketReceive(b, new Uint16Array(8) as unknown as Uint8Array, fds), {
    code: 'ERR_INVALID_ARG_TYPE',
  });
  t.equal(native.socketReceive(b, Buffer.alloc(8), fds), 1, 'the message is still there');
  t.equal(fds[0], 1);
  closeSync(fds[1]);
  closeSync(event);
  t.equal(openDescriptors(), before);
  closeSync(a);
  closeSync(b);
  t.throws(() => native.socketReceive(b, Buffer.alloc(8), fds), {
    code: 'EBADF',
    syscall: 'recvmsg',
  });
});

/** What a process that may have 600 descriptors at most says. */
function limited(script: string): string {
  const addon = new URL('../../src/native/index.js', import.meta.url).href;
  const text = `
    import { readdirSync } from 'node:fs';
    const { native } = await import(${JSON.stringify(addon)});
    const [a, b] = native.socketPair();
    const event = native.eventfdCreate();
    const count = () => readdirSync('/proc/self/fd').length;
    const fds = new Int32Array(254);
    ${script}`;
  const arguments_ = ['--input-type=module', '-e', text];
  const child = spawnSync(
    'sh',
    // Without tap's loaders: they write files at the end.
    ['-c', 'unset NODE_OPTIONS; ulimit -n 600; exec "$0" "$@"', process.execPath, ...arguments_],
    { timeout: 60_000, encoding: 'utf8' },
  );
  return child.stdout + child.stderr;
}

const RECEIVE = `
  native.socketSend(a, Buffer.from('x'), new Array(200).fill(event));
  try {
    native.socketReceive(b, Buffer.alloc(8), fds);
  } catch (error) {
    console.log(error.code, error.errno, error.syscall, fds[0]);
  }`;

t.test('descriptors that do not fit the process are an error', async (t) => {
  const filled = 'while (count() < 500) native.eventfdCreate();';
  t.match(limited(`${filled} ${RECEIVE}`), /^EMFILE 24 recvmsg 10\d\n$/, 'and some came');
});

t.test('with a reserve the kernel drops none of them', async (t) => {
  const script = `
    native.reserveDescriptors(256);
    const fill = () => {
      try {
        for (;;) native.eventfdCreate();
      } catch (error) {
        console.log(error.code);
      }
    };
    fill();
    ${RECEIVE}
    fill();`;
  t.equal(limited(script), 'EMFILE\nEMFILE 24 recvmsg 200\nEMFILE\n');
});

t.test('a descriptor passed along is the same open file', async (t) => {
  const [a, b] = native.socketPair();
  const memory = native.memfdCreate('guest', 8192);
  native.socketSend(a, Buffer.from('x'), [memory]);
  const fds = new Int32Array(254);
  native.socketReceive(b, Buffer.alloc(1), fds);
  t.equal(fstatSync(fds[1]).ino, fstatSync(memory).ino);
  const here = new Uint8Array(native.mapFile(memory, 0, 8192, true));
  const there = new Uint8Array(native.mapFile(fds[1], 0, 8192, true));
  there[4096] = 5;
  t.equal(here[4096], 5);
  for (const fd of [a, b, memory, fds[1]]) closeSync(fd);
});

t.test('sockets that another process opened', async (t) => {
  const path = join(directory, 'passed.sock');
  const listener = native.socketListen(path, 1);
  t.strictSame(native.socketAdopt(listener), { listening: true, address: path });
  const [a, b] = native.socketPair();
  t.strictSame(native.socketAdopt(a), { listening: false, address: '' });
  t.equal(flags(a) & (O_NONBLOCK | O_CLOEXEC), O_NONBLOCK | O_CLOEXEC);
  const file = native.memfdCreate('x', 4096);
  t.throws(() => native.socketAdopt(file), { code: 'ENOTSOCK', syscall: 'getsockopt' });
  for (const fd of [listener, a, b, file]) closeSync(fd);
  t.throws(() => native.socketAdopt(a), { code: 'EBADF' });
  t.throws(() => native.socketAdopt(-1), { code: 'ERR_OUT_OF_RANGE' });

  const script = `
import socket, subprocess, sys
node = sys.argv[1:]
def adopt(s):
    s.setblocking(True)
    return subprocess.run([*node, str(s.fileno())], pass_fds=[s.fileno()], capture_output=True, text=True).stdout
abstract = socket.socket(socket.AF_UNIX); abstract.bind("\\0doorbell-" + str(__import__("os").getpid())); abstract.listen()
print(adopt(abstract), end="")
print(adopt(socket.socket(socket.AF_UNIX)), end="")
print(adopt(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)), end="")
print(adopt(socket.socket(socket.AF_INET)), end="")
`;
  const index = new URL('../../src/native/index.js', import.meta.url).href;
  const code = `import(${JSON.stringify(index)}).then(({ native }) => {
    try { console.log(JSON.stringify(native.socketAdopt(Number(process.argv[1])))); }
    catch (error) { console.log(error.code); }
  });`;
  const { stdout, error } = spawnSync('python3', ['-c', script, process.execPath, '-e', code], {
    encoding: 'utf8',
  });
  if (error === undefined) {
    const [abstract, idle, datagram, inet] = stdout.trim().split('\n');
    t.match(JSON.parse(abstract), { listening: true, address: /^@doorbell-\d+$/ });
    t.strictSame([idle, datagram, inet], ['ENOTCONN', 'EPROTOTYPE', 'EAFNOSUPPORT']);
  } else {
    t.comment('python3 is not here');
  }
});

t.test('datagrams', async (t) => {
  const nowhere = join(directory, 'none');
  t.throws(() => native.datagramSend(nowhere, Buffer.from('x')), {
    code: 'ENOENT',
    syscall: 'sendto',
  });
  t.throws(() => native.datagramSend('@doorbell-none', Buffer.from('x')), { code: 'ECONNREFUSED' });
  t.throws(() => native.datagramSend('', Buffer.from('x')), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => native.datagramSend('x'.repeat(108), Buffer.from('x')), {
    code: 'ERR_OUT_OF_RANGE',
  });
  const before = openDescriptors();
  for (let i = 0; i < 10; i++) {
    t.throws(() => native.datagramSend(nowhere, Buffer.from('x')));
  }
  t.equal(openDescriptors(), before);
});
