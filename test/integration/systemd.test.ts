/** What the target tells a service manager, on a real datagram socket in another process. */
import { spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { VfioClient } from '../../src/client/vfio.ts';
import { native } from '../../src/native/index.ts';
import { shortFolder } from '../helpers/rpc.ts';
import { Doorbell } from '../helpers/rpc-process.ts';
import type { Test } from '../helpers/target.ts';
import { spawnTied } from '../helpers/tied.ts';

/** From dist/test/integration. */
const MANAGER = fileURLToPath(new URL('../../../test/helpers/manager.py', import.meta.url));
const STOP_THREAD = fileURLToPath(new URL('../../../test/helpers/stop-thread.py', import.meta.url));
const hasPython = spawnSync('python3', ['--version']).status === 0;
const skip = hasPython ? false : 'python3 is not here';

/** The messages that come to an address, one after the other. */
async function listenAt(t: Test, address: string): Promise<() => Promise<string>> {
  const child = spawnTied('python3', [MANAGER, address]);
  t.teardown(() => child.kill('SIGKILL'));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => String((await lines.next()).value);
  await next();
  return next;
}

/** A target with one disk in a folder of its own, told of the manager by its environment. */
function start(t: Test, folder: string, env: Record<string, string>): Doorbell {
  const cpus = native.getAffinity();
  const args = [
    ...['serve', '--default-disk', join(folder, 'disk.img'), '--disk-size', '1M'],
    ...['--socket-dir', folder, '--rpc-socket', join(folder, 'rpc.sock')],
    ...['--cores', String(cpus.at(-1)), '--log-level', 'warn'],
  ];
  const running = new Doorbell(args, undefined, env);
  t.teardown(() => running.child.kill('SIGKILL'));
  return running;
}

/** The next message that fits; those before it are left out. */
async function until(next: () => Promise<string>, pattern: RegExp): Promise<string> {
  for (;;) {
    const message = await next();
    if (pattern.test(message)) return message;
  }
}

t.test('from ready to stopping', { skip }, async (t) => {
  for (const kind of ['path', 'abstract']) {
    const folder = shortFolder(t);
    const address = kind === 'path' ? join(folder, 'notify') : `@doorbell-${randomUUID()}`;
    const next = await listenAt(t, address);
    const running = start(t, folder, { NOTIFY_SOCKET: address });
    t.equal(await next(), 'READY=1\tSTATUS=serving 0 VMs at 1 socket', kind);
    const client = VfioClient.connect(join(folder, 'cntrl'));
    await client.version();
    t.equal(await next(), 'STATUS=serving 1 VM at 1 socket');
    client.close();
    t.equal(await next(), 'STATUS=serving 0 VMs at 1 socket');
    running.child.kill('SIGTERM');
    t.equal(await next(), 'STOPPING=1\tSTATUS=finishing what is in flight');
    const { code, stderr } = await running.outcome;
    t.equal(code, 0);
    t.equal(stderr, '');
  }
});

/** The thread of the reactor: a task of the process. */
function reactorThread(pid: number): string {
  const tasks = `/proc/${pid}/task`;
  const found = readdirSync(tasks).find((tid) => {
    try {
      return readFileSync(join(tasks, tid, 'comm'), 'utf8').startsWith('reactor_0');
    } catch {
      // The kernel's own threads for io_uring come and go.
      return false;
    }
  });
  if (found === undefined) throw new Error('the reactor has no thread');
  return found;
}

t.test('the watchdog hears of a reactor that hangs: it hears nothing', { skip }, async (t) => {
  const folder = shortFolder(t);
  const address = join(folder, 'notify');
  const next = await listenAt(t, address);
  const running = start(t, folder, { NOTIFY_SOCKET: address, WATCHDOG_USEC: '400000' });
  const pid = running.child.pid!;
  for (let i = 0; i < 3; i++) {
    await until(next, /^WATCHDOG=1$/);
  }
  const complaint = once(createInterface({ input: running.child.stderr }), 'line');
  const stopper = spawnTied('python3', [STOP_THREAD, reactorThread(pid)]);
  t.teardown(() => stopper.kill('SIGKILL'));
  const [answer] = await once(createInterface({ input: stopper.stdout }), 'line');
  t.equal(answer, 'stopped');
  const [line] = await complaint;
  t.match(JSON.parse(line), { level: 50, reactors: [0], msg: /reactors hang/ });
  // What it had said before.
  let said = next();
  const silent = Symbol();
  const pause = () => new Promise((resolve) => setTimeout(() => resolve(silent), 1000));
  let heard = await Promise.race([said, pause()]);
  while (heard !== silent) {
    said = next();
    heard = await Promise.race([said, pause()]);
  }
  stopper.stdin.end();
  t.equal(await said, 'WATCHDOG=1', 'it goes on');
  t.equal(await next(), 'WATCHDOG=1');
});

t.test('a watchdog meant for another process is left alone', { skip }, async (t) => {
  const folder = shortFolder(t);
  const address = join(folder, 'notify');
  const next = await listenAt(t, address);
  const env = { NOTIFY_SOCKET: address, WATCHDOG_USEC: '100000', WATCHDOG_PID: '1' };
  const running = start(t, folder, env);
  t.match(await next(), /^READY=1/);
  await new Promise((resolve) => setTimeout(resolve, 300));
  running.child.kill('SIGTERM');
  t.match(await next(), /^STOPPING=1/);
});

t.test('a manager that is gone is complained about once', { skip }, async (t) => {
  const folder = shortFolder(t);
  const running = start(t, folder, {
    NOTIFY_SOCKET: join(folder, 'none'),
    WATCHDOG_USEC: '50000',
  });
  await running.printed(/vfio-user/);
  await new Promise((resolve) => setTimeout(resolve, 200));
  running.child.kill('SIGTERM');
  const { code, stderr } = await running.outcome;
  t.equal(code, 0);
  const complaints = stderr.split('\n').filter((line) => line.includes('not told'));
  t.equal(complaints.length, 1);
  t.match(JSON.parse(complaints[0]), {
    level: 40,
    msg: /manager was not told/,
    reason: /No such file/,
  });
});
