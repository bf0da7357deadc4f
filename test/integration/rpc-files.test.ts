/** The methods that make files for disks and folders for sockets. */
import { mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
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

t.test('a folder that cannot be made has an end', async (t) => {
  const { call, refusal } = await startRpcTarget(t);
  const parent = shortFolder(t);
  symlinkSync(join(parent, 'loop'), join(parent, 'loop'));
  symlinkSync(join(parent, 'nowhere'), join(parent, 'dangling'));
  for (const [folder, codes] of [
    // The folder above is there, and the system says that it is not.
    ['/proc/x', [-2]],
    ['/proc/x/y', [-2]],
    ['/proc/self/x', [-2]],
    ['/sys/x', [-1, -2, -13]],
    ['/sys/x/y/z', [-1, -2, -13]],
    [join(parent, 'loop'), [-40]],
    [join(parent, 'loop', 'x'), [-40]],
    [join(parent, 'dangling'), [-2]],
    [join(parent, 'dangling', 'x'), [-2]],
    [join(parent, 'n'.repeat(256)), [-36]],
    [join(parent, 'n'.repeat(256), 'x'), [-36]],
    [`/${'é/'.repeat(2000)}`, [-36]],
  ] as const) {
    const { code, message } = await refusal('doorbell_create_socket_folder', { folder });
    t.ok(
      codes.some((known) => known === code),
      `${folder.slice(-20)}: ${code} ${message.slice(0, 60)}`,
    );
  }
  const deep = join(parent, ...Array.from({ length: 200 }, (_, i) => `d${i}`));
  t.equal(await call('doorbell_create_socket_folder', { folder: deep }), true);
  t.ok(statSync(deep).isDirectory());
  t.equal(await call('doorbell_create_socket_folder', { folder: '/' }), true, 'it is there');
});
