/** What is remembered of a failed write-back. */
import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import t, { type Test } from 'tap';
import { type FailedFile, FailedFiles } from '../../src/bdev/failed-files.ts';
import { FileBdev } from '../../src/bdev/file.ts';
import { UncorrectableFiles } from '../../src/bdev/uncorrectable-files.ts';
import { makeWriteBack, syncLost, WriteBack, writeLost } from '../../src/bdev/write-back.ts';
import { shortFolder } from '../helpers/rpc.ts';

const { EAGAIN, ECANCELED, EDQUOT, EFBIG, EINTR, EIO, ENOSPC, EROFS } = constants.errno;

t.test('which errors lose data', async (t) => {
  for (const errno of [EIO, ENOSPC, EDQUOT]) {
    t.equal(syncLost(errno), true);
    t.equal(writeLost(errno), true);
  }
  for (const errno of [EINTR, EAGAIN, ECANCELED]) {
    t.equal(syncLost(errno), false);
    t.equal(writeLost(errno), false);
  }
  for (const errno of [EROFS, EFBIG]) {
    t.equal(syncLost(errno), true, 'what a sync says of it');
    t.equal(writeLost(errno), false, 'a write that was not begun');
  }
});

t.test('the word: the first failure, for ever, for all threads', async (t) => {
  const memory = makeWriteBack();
  const [one, other] = [new WriteBack(memory), new WriteBack(memory)];
  t.match(one, { failed: false, errno: 0 });
  const told = one.wait();
  const code = `
    const { workerData } = require('node:worker_threads');
    import(workerData.module).then(({ WriteBack }) => new WriteBack(workerData.memory).fail(${EIO}));`;
  const module = new URL('../../src/bdev/write-back.js', import.meta.url).href;
  new Worker(code, { eval: true, workerData: { module, memory } });
  await told;
  other.fail(ENOSPC);
  t.match(one, { failed: true, errno: EIO });
  t.match(other, { failed: true, errno: EIO });
  await other.wait();
  t.match(new WriteBack(makeWriteBack(ENOSPC)), { failed: true, errno: ENOSPC });
});

t.test('waiting ends without a failure, too', async (t) => {
  const writeBack = new WriteBack(makeWriteBack());
  const waiting = writeBack.wait();
  writeBack.forget();
  await waiting;
  t.equal(writeBack.failed, false);
});

function files(t: Test, failed: FailedFile[] = []) {
  const folder = shortFolder(t);
  const told: FailedFile[] = [];
  const registry = new FailedFiles((failure) => told.push(failure));
  let changes = 0;
  registry.onChange = () => {
    changes += 1;
  };
  registry.restore(failed);
  const context = { reactors: 1, failed: registry, uncorrectable: new UncorrectableFiles() };
  const open = (name: string, readonly = false) => {
    const filename = join(folder, name);
    const bdev = FileBdev.open(
      { index: 0, name, uuid: '00112233-4455-6677-8899-aabbccddeeff' },
      { module: 'uring', filename, readonly },
      context,
    );
    return bdev;
  };
  const make = (name: string) => writeFileSync(join(folder, name), Buffer.alloc(8192));
  return { folder, registry, told, open, make, changes: () => changes };
}

t.test('a file is one, however many bdevs are on it', async (t) => {
  const { registry, told, open, make, changes } = files(t);
  make('a');
  make('b');
  const [one, other, reader, stranger] = await Promise.all([
    open('a'),
    open('a'),
    open('a', true),
    open('b'),
  ]);
  t.equal(one.backend.writeBack, other.backend.writeBack);
  t.not(one.backend.fds[0], other.backend.fds[0], 'each has descriptions of its own');
  new WriteBack(one.backend.writeBack).fail(ENOSPC);
  for (const bdev of [one, other, reader]) {
    t.match(bdev.failure, { errno: ENOSPC, path: /a$/ });
    t.match(bdev.driverSpecific, {
      uring: { write_back_failed: true, write_back_error: 'ENOSPC', write_back_failed_at: String },
    });
  }
  t.equal(stranger.failure, undefined);
  t.equal(told.length, 1, 'told once');
  await t.rejects(one.sync(), { code: 'EIO', message: /earlier write-back of .*a has failed/ });
  await t.rejects(other.sync(), { code: 'EIO' });
  await stranger.sync();
  t.match(registry.list(), [{ path: one.failure?.path, errno: ENOSPC }]);
  t.equal(changes(), 1);

  for (const bdev of [one, other, reader]) {
    await bdev.close();
  }
  t.equal(registry.list().length, 1, 'without a bdev, too');
  const again = await open('a');
  t.match(again.failure, { errno: ENOSPC });
  t.equal(new WriteBack(again.backend.writeBack).failed, true);
  t.equal(registry.list().length, 1);
  await again.close();
  await stranger.close();
});

t.test('a failure that main finds while the bdev goes', async (t) => {
  const { registry, open, make, changes } = files(t);
  make('a');
  const bdev = await open('a');
  new WriteBack(bdev.backend.writeBack).fail(EIO);
  await bdev.close();
  t.equal(registry.list().length, 1);
  t.equal(changes(), 1);
});

t.test('after a restart', async (t) => {
  const first = files(t);
  first.make('a');
  const bdev = await first.open('a');
  new WriteBack(bdev.backend.writeBack).fail(EIO);
  await bdev.close();
  const [failure] = JSON.parse(JSON.stringify(first.registry.list())) as FailedFile[];

  const open = async (known: FailedFile) => {
    const context = {
      reactors: 1,
      failed: new FailedFiles(() => {}),
      uncorrectable: new UncorrectableFiles(),
    };
    context.failed.restore([known]);
    const options = { module: 'aio', filename: join(first.folder, 'a') } as const;
    const again = await FileBdev.open({ index: 0, name: 'x', uuid: '' }, options, context);
    const known_ = again.failure !== undefined;
    await again.close();
    return known_;
  };
  t.equal(await open(failure), true);
  t.equal(
    await open({ ...failure, device: '1' }),
    true,
    'the device has another number: the same path',
  );
  t.equal(await open({ ...failure, path: '/x' }), true, 'it was named otherwise');
  t.equal(await open({ ...failure, device: '1', path: '/x' }), false);
  t.equal(await open({ ...failure, inode: '1' }), false, 'another file at this path');
  renameSync(join(first.folder, 'a'), join(first.folder, 'old'));
  first.make('a');
  t.equal(await open(failure), false, 'restored from elsewhere');
  rmSync(join(first.folder, 'a'));
});
