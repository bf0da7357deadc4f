/** The methods that make files for disks and folders for sockets. */
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { shortFolder, startRpcTarget } from '../helpers/rpc.ts';

t.test('a disk file is sparse, for its user only, and never replaces anything', async (t) => {
  const { call, refusal } = await startRpcTarget(t);
  const filename = join(shortFolder(t), 'a.img');
  t.equal(await call('doorbell_create_disk_file', { filename, size: 2 ** 40 }), true);
  const { size, mode, blocks } = statSync(filename);
  t.strictSame([size, mode & 0o777, blocks], [2 ** 40, 0o600, 0]);

  writeFileSync(filename, 'kept');
  t.match(await refusal('doorbell_create_disk_file', { filename, size: 4096 }), {
    code: -17,
    message: `File exists: ${filename}`,
  });
  t.equal(readFileSync(filename, 'utf8'), 'kept');
  const missing = join(filename, '..', 'no', 'such');
  t.match(await refusal('doorbell_create_disk_file', { filename: missing, size: 4096 }), {
    code: -2,
  });
  for (const [params, message] of [
    [{ filename: 'relative', size: 4096 }, /'filename' must be an absolute path/],
    [{ filename: '/x', size: 4097 }, /'size' must be a multiple of 4096/],
    [{ filename: '/x', size: 0 }, /'size'/],
    [{ filename: '/x' }, /'size'/],
  ] as const) {
    t.match(await refusal('doorbell_create_disk_file', params), { code: -32602, message });
  }
});

t.test('a folder of a socket is for its user only, and may be there', async (t) => {
  const { call, refusal } = await startRpcTarget(t);
  const parent = shortFolder(t);
  const folder = join(parent, 'a', 'b');
  t.equal(await call('doorbell_create_socket_folder', { folder }), true);
  t.equal(statSync(folder).mode & 0o777, 0o700);
  t.equal(statSync(join(parent, 'a')).mode & 0o777, 0o700);
  mkdirSync(join(parent, 'open'), { mode: 0o755 });
  t.equal(await call('doorbell_create_socket_folder', { folder: join(parent, 'open') }), true);
  t.equal(statSync(join(parent, 'open')).mode & 0o777, 0o755, 'and stays as it is');
  writeFileSync(join(parent, 'file'), '');
  t.match(await refusal('doorbell_create_socket_folder', { folder: join(parent, 'file') }), {
    code: -17,
  });
  t.match(await refusal('doorbell_create_socket_folder', { folder: join(parent, 'file', 'x') }), {
    code: -20,
  });
  t.match(await refusal('doorbell_create_socket_folder', { folder: 'a' }), {
    code: -32602,
    message: /absolute/,
  });
});
