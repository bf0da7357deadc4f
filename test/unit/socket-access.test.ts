/** Texts of --rpc-socket-mode and --rpc-socket-owner. */
import { readFileSync } from 'node:fs';
import t from 'tap';
import { parseOwner, parseSocketMode } from '../../src/app/socket-access.ts';

t.test('modes', async (t) => {
  for (const [text, mode] of [
    ['600', 0o600],
    ['0660', 0o660],
    ['666', 0o666],
  ] as const) {
    t.equal(parseSocketMode(text), mode);
  }
  for (const text of ['', '66', '400', '777', '0o660', '1660', '680', 'rw', '-600', '660 ']) {
    t.throws(() => parseSocketMode(text), { message: /octal/ }, JSON.stringify(text));
  }
});

t.test('owners', async (t) => {
  const groups = readFileSync('/etc/group', 'utf8').split('\n');
  const [group, , gid] = groups[3].split(':');
  t.strictSame(parseOwner('root'), { uid: 0, gid: 0 });
  t.strictSame(parseOwner('0:0'), { uid: 0, gid: 0 });
  t.strictSame(parseOwner(`root:${group}`), { uid: 0, gid: Number(gid) });
  t.strictSame(parseOwner(`:${group}`), { uid: process.getuid?.(), gid: Number(gid) });
  t.strictSame(parseOwner('root:'), { uid: 0, gid: 0 });
  t.strictSame(parseOwner('4000000000'), { uid: 4000000000, gid: 4000000000 });
  t.strictSame(parseOwner('12345:54321'), { uid: 12345, gid: 54321 });
  for (const [text, message] of [
    ['', /user/],
    [':', /user/],
    ['a:b:c', /user:group/],
    ['no-such-user', /no user no-such-user/],
    ['root:no-such-group', /no group no-such-group/],
    ['4294967295', /no user 4294967295/],
    ['-1', /no user -1/],
  ] as const) {
    t.throws(() => parseOwner(text), { message }, JSON.stringify(text));
  }
});
