/** FdPoll: readiness, its own end from within, errors, and the end of a thread that still watches. */
import { spawnSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import t from 'tap';
import { type FdPoll, native } from '../../src/native/index.ts';

const addon = new URL('../../src/native/index.js', import.meta.url).href;

t.test('reports readability until the bytes are read', async (t) => {
  const [a, b] = native.socketPair();
  const fds = new Int32Array(254);
  let calls = 0;
  await new Promise<void>((resolve) => {
    const poll: FdPoll = new native.FdPoll(b, (readable, writable) => {
      calls += 1;
      t.same([readable, writable], [true, false]);
      if (calls < 3) return;
      t.equal(native.socketReceive(b, Buffer.alloc(8), fds), 1);
      poll.stop();
      setImmediate(() => {
        poll.close();
        resolve();
      });
    });
    poll.start(true, false);
    native.socketSend(a, Buffer.from('x'), []);
  });
  t.equal(calls, 3);
  closeSync(a);
  closeSync(b);
});

t.test('reports what is asked, and what is asked may change', async (t) => {
  const [a, b] = native.socketPair();
  const seen: string[] = [];
  await new Promise<void>((resolve) => {
    const poll: FdPoll = new native.FdPoll(b, (readable, writable) => {
      seen.push(`${readable} ${writable}`);
      if (seen.length === 1) {
        native.socketSend(a, Buffer.from('x'), []);
        poll.start(true, true);
      } else if (seen.length === 2) {
        poll.start(true, false);
      } else {
        poll.close();
        resolve();
      }
    });
    poll.start(false, true);
  });
  t.same(seen, ['false true', 'true true', 'true false']);
  closeSync(a);
  closeSync(b);
});

t.test('a peer that hangs up makes it readable', async (t) => {
  const [a, b] = native.socketPair();
  await new Promise<void>((resolve) => {
    const poll: FdPoll = new native.FdPoll(b, (readable) => {
      t.equal(readable, true);
      t.equal(native.socketReceive(b, Buffer.alloc(1), new Int32Array(254)), 0);
      poll.close();
      resolve();
    });
    poll.start(true, false);
    closeSync(a);
  });
  closeSync(b);
});

t.test('an error counts as both, until it is read', async (t) => {
  const [a, b] = native.socketPair();
  native.socketSend(b, Buffer.from('unread'), []);
  let calls = 0;
  await new Promise<void>((resolve) => {
    const poll: FdPoll = new native.FdPoll(b, (readable, writable) => {
      calls += 1;
      t.same([readable, writable], [true, true]);
      if (calls < 3) return;
      t.throws(() => native.socketReceive(b, Buffer.alloc(1), new Int32Array(254)), {
        code: 'ECONNRESET',
      });
      poll.close();
      resolve();
    });
    poll.start(true, false);
    closeSync(a); // with bytes unread: the peer gets ECONNRESET
  });
  t.equal(calls, 3);
  closeSync(b);
});

t.test('close and stop may come at any time, in any order', async (t) => {
  const [a, b] = native.socketPair();
  const poll = new native.FdPoll(b, () => t.fail('called after close'));
  poll.stop();
  poll.start(true, false);
  poll.start(true, false);
  native.socketSend(a, Buffer.from('x'), []);
  poll.close();
  poll.close();
  poll.stop();
  t.throws(() => poll.start(true, false), { code: 'EBADF' });
  const again = new native.FdPoll(b, () => {});
  again.close();
  closeSync(a);
  closeSync(b);
  await new Promise((resolve) => setTimeout(resolve, 10));
});

t.test(
  'one that is no longer started does not keep the process alive; one dropped is collected',
  async (t) => {
    const script = `
    const { native } = await import(${JSON.stringify(addon)});
    const [, b] = native.socketPair();
    const poll = new native.FdPoll(b, () => {});
    poll.start(true, false);
    poll.stop();
    for (let i = 0; i < 1000; i++) {
      const fd = native.eventfdCreate();
      const dropped = new native.FdPoll(fd, () => {});
      if (i % 2) dropped.start(true, false), dropped.stop();
    }
    gc();
    setImmediate(() => { gc(); console.log('end'); });`;
    const child = spawnSync(
      process.execPath,
      ['--expose-gc', '--input-type=module', '-e', script],
      { timeout: 60_000 },
    );
    t.equal(child.stdout.toString(), 'end\n', child.stderr.toString());
    t.equal(child.status, 0);
  },
);

t.test('a started one keeps itself and the loop alive', async (t) => {
  const script = `
    const { native } = await import(${JSON.stringify(addon)});
    const [a, b] = native.socketPair();
    (() => { let poll = new native.FdPoll(b, () => { console.log('ready'); poll.close(); }); poll.start(true, false); })();
    setTimeout(() => { gc(); native.socketSend(a, Buffer.from('x'), []); }, 20).unref();
    setTimeout(() => {}, 10);
    `;
  const child = spawnSync(process.execPath, ['--expose-gc', '--input-type=module', '-e', script], {
    timeout: 60_000,
  });
  t.equal(child.stdout.toString(), 'ready\n', child.stderr.toString());
});

t.test('an error thrown by the callback is an uncaught exception', async (t) => {
  const script = `
    const { native } = await import(${JSON.stringify(addon)});
    const [a, b] = native.socketPair();
    process.on('uncaughtException', (error) => { console.log('caught', error.message); poll.close(); });
    const poll = new native.FdPoll(b, () => { throw new Error('boom'); });
    poll.start(true, false);
    native.socketSend(a, Buffer.from('x'), []);`;
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    timeout: 60_000,
  });
  t.equal(child.stdout.toString(), 'caught boom\n', child.stderr.toString());
  t.equal(child.status, 0);
});

t.test('promises made in the callback are settled before the next event', async (t) => {
  const [a, b] = native.socketPair();
  const order = await new Promise<string[]>((resolve) => {
    const order: string[] = [];
    const poll: FdPoll = new native.FdPoll(b, () => {
      order.push('ready');
      Promise.resolve().then(() => order.push('promise'));
      if (order.length < 4) return;
      poll.close();
      setImmediate(() => resolve(order));
    });
    poll.start(true, false);
    native.socketSend(a, Buffer.from('x'), []);
  });
  t.same(order.slice(0, 4), ['ready', 'promise', 'ready', 'promise']);
  closeSync(a);
  closeSync(b);
});

t.test('a thread may end while it watches', async (t) => {
  const source = (tail: string) => `
    const { parentPort } = require('node:worker_threads');
    import(${JSON.stringify(addon)}).then(({ native }) => {
      const polls = [];
      for (let i = 0; i < 20; i++) {
        const [a, b] = native.socketPair();
        const poll = new native.FdPoll(b, () => { if (i === 19) { ${tail} } });
        polls.push(poll);
        if (i % 3) poll.start(true, false);
        if (i % 5 === 0) poll.close();
        native.socketSend(a, Buffer.from('x'), []);
      }
      parentPort.postMessage('ready');
    });`;
  for (const tail of ['', 'process.exit(0)', 'for (;;);']) {
    const worker = new Worker(source(tail), { eval: true });
    const exit = new Promise((resolve) => worker.once('exit', resolve));
    await new Promise((resolve) => worker.once('message', resolve));
    if (!tail.includes('exit')) worker.terminate();
    await exit;
    t.pass(`ended: ${tail || 'between callbacks'}`);
  }
});

t.test('arguments are checked', async (t) => {
  const { FdPoll } = native;
  const event = native.eventfdCreate();
  t.throws(() => new FdPoll(-1, () => {}), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => new FdPoll(100_000, () => {}), { code: 'EBADF', syscall: 'uv_poll_init' });
  t.throws(() => new FdPoll(event, 'x' as unknown as () => void), { code: 'ERR_INVALID_ARG_TYPE' });
  t.throws(() => (FdPoll as unknown as (fd: number) => void)(event), { name: 'TypeError' });
  const file = openSync('/proc/self/exe', 'r');
  t.throws(
    () => new FdPoll(file, () => {}),
    { code: 'EPERM' },
    'a file is always ready: not pollable',
  );
  closeSync(file);
  const poll = new FdPoll(event, () => {});
  t.throws(() => poll.start(false, false), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => poll.start(1 as unknown as boolean, false), { code: 'ERR_INVALID_ARG_TYPE' });
  t.throws(() => FdPoll.prototype.start.call({} as FdPoll, true, true));
  const second = new FdPoll(event, () => {});
  poll.start(true, false);
  t.throws(() => new FdPoll(event, () => {}), { code: 'EEXIST' });
  t.throws(() => second.start(true, false), { code: 'EEXIST' });
  second.close();
  poll.close();
  closeSync(event);
});
