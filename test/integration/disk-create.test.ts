/** `doorbell disk create`: what is made, what is refused, and that nothing is left of what did not work. */
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { createDisk } from '../../src/cli/disk/create.ts';
import { canPty, Pty } from '../helpers/pty.ts';
import { shortFolder } from '../helpers/rpc.ts';
import { Doorbell, doorbell } from '../helpers/rpc-process.ts';

const CLI = fileURLToPath(new URL('../../src/cli/doorbell.js', import.meta.url));
const MIB = 2 ** 20;
const allocated = (path: string) => statSync(path).blocks * 512;

t.test('sparse and preallocated', async (t) => {
  const folder = shortFolder(t);
  const [sparse, full] = [join(folder, 'sparse'), join(folder, 'full')];
  t.match(await doorbell(['disk', 'create', sparse, '1G']), {
    code: 0,
    stdout: `${sparse}: 1 GiB, sparse\n`,
    stderr: '',
  });
  t.match(statSync(sparse), { size: 2 ** 30 });
  t.ok(allocated(sparse) < MIB);
  t.equal(statSync(sparse).mode & 0o777, 0o600);
  const outcome = await doorbell(['disk', 'create', full, '9M', '--preallocate', '--json']);
  t.match(outcome, { code: 0, stderr: '' });
  t.strictSame(JSON.parse(outcome.stdout), { path: full, bytes: 9 * MIB, allocated: true });
  t.equal(statSync(full).size, 9 * MIB);
  t.ok(allocated(full) >= 9 * MIB);
  t.ok(readFileSync(full).every((byte) => byte === 0));
});

t.test('refused', async (t) => {
  const folder = shortFolder(t);
  const there = join(folder, 'there');
  writeFileSync(there, 'data');
  for (const how of ['--sparse', '--preallocate']) {
    t.match(await doorbell(['disk', 'create', there, '1M', how]), {
      code: 1,
      stdout: '',
      stderr: /^doorbell: cannot make the disk: File exists: .*there: it is left as it is.*\n$/,
    });
  }
  t.equal(readFileSync(there, 'utf8'), 'data');
  t.match(await doorbell(['disk', 'create', join(folder, 'no', 'x'), '1M']), {
    code: 1,
    stderr: /No such file or directory: /,
  });
  const bad = [['x', '1X'], ['x', '5000'], ['x'], ['x', '1M', '--sparse', '--preallocate']];
  for (const args of bad) {
    t.match(await doorbell(['disk', 'create', ...args]), { code: 2, stdout: '' }, args.join(' '));
  }
  t.notOk(existsSync('x'));
});

t.test('no space', async (t) => {
  // As a file system that is full has it.
  const path = join(shortFolder(t), 'disk');
  await t.rejects(
    createDisk(path, 8 * MIB, true, () => {
      throw Object.assign(new Error('full'), { code: 'ENOSPC', errno: -28, syscall: 'write' });
    }),
    { message: `No space left on device: ${path}` },
  );
  t.notOk(existsSync(path), 'nothing is left');
});

t.test('stopped', async (t) => {
  const path = join(shortFolder(t), 'disk');
  const running = new Doorbell(['disk', 'create', path, '200G', '--preallocate']);
  while (!existsSync(path) || statSync(path).size === 0) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  running.child.kill('SIGTERM');
  t.match(await running.outcome, {
    code: 143,
    stdout: '',
    stderr: /^doorbell: stopped; .* removed/,
  });
  t.notOk(existsSync(path), 'nothing is left');
});

t.test('progress, on a terminal', { skip: canPty ? false : 'no script(1)' }, async (t) => {
  const path = join(shortFolder(t), 'disk');
  const pty = new Pty(t, `${process.execPath} ${CLI} disk create ${path} 200G --preallocate`);
  await pty.shown(/\d+% {2}[\d.]+ \w+ of 200 GiB {2}[\d.]+ \w+\/s/);
  pty.type('\x03');
  await pty.shown(/stopped/);
  t.equal((await pty.outcome).code, 130);
  t.notOk(existsSync(path), 'nothing is left');
});
