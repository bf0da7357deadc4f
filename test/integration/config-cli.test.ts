/** `doorbell config`: what it prints where, its exit codes, and that a running target takes what it converts. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { ConfigDocument } from '../../src/target/model/plan.ts';
import { loadAsClient, saveAsClient } from '../helpers/config.ts';
import { shortFolder, startRpcTarget } from '../helpers/rpc.ts';
import { doorbell } from '../helpers/rpc-process.ts';

t.test('check', async (t) => {
  const folder = shortFolder(t);
  const file = join(folder, 'vms.yaml');
  const other = join(folder, 'other.yaml');
  writeFileSync(file, 'vms:\n  web:\n    sokcet: /a\n    disks: [{ file: a, size: x }]\n');
  writeFileSync(other, 'disks: [\n');
  const mistakes = [
    `${file}:3:5: vms.web.sokcet: unknown key, did you mean 'socket'?`,
    `${file}:4:24: vms.web.disks[0].size: must be a size like 20G`,
  ];
  t.strictSame(await doorbell(['config', 'check', file]), {
    code: 1,
    stdout: '',
    stderr: `${mistakes.join('\n')}\ndoorbell: 2 mistakes\n`,
  });
  const json = await doorbell(['config', 'check', '--json', file]);
  t.match(json, { code: 1, stderr: 'doorbell: 2 mistakes\n' });
  t.match(JSON.parse(json.stdout), {
    ok: false,
    files: [file],
    problems: [
      { file, line: 3, column: 5, key: 'vms.web.sokcet', message: /^unknown key/ },
      { file, line: 4, column: 24, key: 'vms.web.disks[0].size', message: /^must be/ },
    ],
  });
  const absent = join(folder, 'absent');
  const several = await doorbell(['config', 'check', other, absent]);
  t.match(several, { code: 1, stdout: '' });
  t.match(several.stderr, new RegExp(`${other}:2:1: .*flow.*`, 'i'));
  t.match(several.stderr, `${absent}: No such file or directory`);
  t.match(await doorbell(['config', 'check']), { code: 2, stderr: /missing required argument/ });
});

t.test('check looks at the host, if it may', async (t) => {
  const folder = shortFolder(t);
  const file = join(folder, 'vms.yaml');
  writeFileSync(file, `socket: ${folder}\ndisks: [a.img, { ram: 1M }]\n`);
  t.match(await doorbell(['config', 'check', file]), {
    code: 1,
    stderr: /vms\.yaml:2:9: disks\[0\]: .*a\.img does not exist/,
  });
  const good = { code: 0, stdout: `${file}: good: 2 disks, 1 subsystem, 1 socket\n`, stderr: '' };
  t.strictSame(await doorbell(['config', 'check', '--no-host', file]), good);
  writeFileSync(join(folder, 'a.img'), Buffer.alloc(4096));
  t.strictSame(await doorbell(['config', 'check', file]), good);
  const json = await doorbell(['config', 'check', file, '--json']);
  t.strictSame(JSON.parse(json.stdout), {
    ok: true,
    files: [file],
    disks: 2,
    subsystems: 1,
    listeners: 1,
    problems: [],
    ignored: [],
  });
});

t.test('mistakes of every kind are told in one run', async (t) => {
  const folder = shortFolder(t);
  const file = join(folder, 'vms.yaml');
  writeFileSync(join(folder, 'folder'), 'a file');
  writeFileSync(
    file,
    `spin-us: fast
vms:
  a:
    socket: ${folder}/folder/a
    color: red
    disks:
      - { file: missing.img }
      - { file: missing.img, size: x }
      - { ram: 1M, null: 1M }
      - { ram: 1M, nsid: 7 }
      - { ram: 1M, nsid: 7 }
      - { ram: 1M, qos: { iops: many } }
  b:
    disks: [{ file: other.img, size: 1000 }]
  c: 5
`,
  );
  const expected = [
    /:1:1: spin-us: must be /,
    /:4:5: vms\.a\.socket: .* is not a folder/,
    /:5:5: vms\.a\.color: unknown key/,
    /:7:9: vms\.a\.disks\[0\]: .*missing\.img does not exist/,
    /:8:\d+: vms\.a\.disks\[1\]\.size: must be a size/,
    /:9:9: vms\.a\.disks\[2\]: a disk has exactly one of/,
    /:11:9: vms\.a\.disks\[4\]: .*7/,
    /:12:\d+: vms\.a\.disks\[5\]\.qos\.iops: must be /,
    /:14:\d+: vms\.b\.disks\[0\]\.size: .1000. is not a size/,
    /:15:3: vms\.c: must be /,
  ];
  for (const command of [
    ['config', 'check', file],
    ['serve', '--config', file, '--rpc-socket', join(folder, 'rpc')],
  ]) {
    const { code, stderr } = await doorbell(command);
    t.equal(code, 1);
    const lines = stderr.split('\n').filter((line) => line.includes('vms.yaml:'));
    t.match(lines, expected);
    t.equal(lines.length, expected.length, 'and nothing that only follows from them');
  }
});

t.test('check looks at the settings of the process', async (t) => {
  const folder = shortFolder(t);
  const file = join(folder, 'vms.yaml');
  const token = join(folder, 'token');
  writeFileSync(token, 'a token of many letters\n', { mode: 0o644 });
  const found = async (text: string) => {
    writeFileSync(file, `socket: ${folder}\n${text}`);
    const { stderr } = await doorbell(['config', 'check', file]);
    return stderr.split('\n')[0].replace(`${file}:`, '');
  };
  t.equal(
    await found('cores: 4095'),
    '2:1: cores: CPU 4095 is not one of those this process may use',
  );
  t.match(await found('http: 0.0.0.0:9000'), /^2:1: http: .* it needs --http-token-file$/);
  t.match(await found(`http: { address: 9000, token-file: ${token} }`), /open to other users/);
  t.equal(await found('http: 9000'), '');
});

t.test('convert: what comes out is taken by a target, and saved as it was', async (t) => {
  const folder = shortFolder(t);
  const file = join(folder, 'vms.yaml');
  const [socket, twin] = ['vm', 'vm2'].map((name) => join(folder, name));
  writeFileSync(join(folder, 'a.img'), Buffer.alloc(8192));
  writeFileSync(
    file,
    `
cores: 0
vms:
  vm:
    sockets: [${socket}, ${twin}]
    disks: [{ file: a.img, readonly: true, nsid: 3 }, { ram: 1M, qos: { mbps: 9 } }]
`,
  );
  const spdk = join(folder, 'spdk.json');
  t.match(await doorbell(['config', 'convert', file, '-o', spdk]), {
    code: 0,
    stdout: '',
    stderr: `${file}:2:1: cores: left out: it is for the command line of doorbell serve\n`,
  });
  const document = JSON.parse(readFileSync(spdk, 'utf8')) as ConfigDocument;
  const { call } = await startRpcTarget(t);
  mkdirSync(socket);
  mkdirSync(twin);
  t.strictSame(await loadAsClient(call, document), []);
  t.match(await call('nvmf_get_subsystems'), [
    {},
    { nqn: /:vm$/, namespaces: [{ nsid: 1, bdev_name: 'vm/ram1' }, { nsid: 3 }] },
  ]);
  const saved = join(folder, 'saved.json');
  writeFileSync(saved, JSON.stringify(await saveAsClient(call)));
  const short = await doorbell(['config', 'convert', saved, '--format', 'json']);
  t.match(short, { code: 0, stderr: '' });
  t.strictSame(JSON.parse(short.stdout), {
    vms: {
      vm: {
        sockets: [socket, twin],
        disks: [
          { ram: '1M', nsid: 1, qos: { mbps: 9 } },
          { file: join(folder, 'a.img'), readonly: true, nsid: 3 },
        ],
      },
    },
  });
});

t.test('convert: refused', async (t) => {
  const folder = shortFolder(t);
  const file = join(folder, 'vms.yaml');
  writeFileSync(file, 'disks: [{}]\n');
  t.strictSame(await doorbell(['config', 'convert', file]), {
    code: 1,
    stdout: '',
    stderr: `${file}:1:9: disks[0]: a disk has exactly one of 'file', 'ram', 'null' and 'nbd'\ndoorbell: not converted\n`,
  });
  writeFileSync(file, 'disks: [a]\n');
  const nowhere = join(folder, 'no', 'where');
  t.strictSame(await doorbell(['config', 'convert', file, '-o', nowhere]), {
    code: 1,
    stdout: '',
    stderr: `doorbell: cannot write: No such file or directory: ${nowhere}\n`,
  });
  for (const args of [[], [file, '--to', 'ini'], [file, '--format', 'xml'], [file, file]]) {
    t.match(await doorbell(['config', 'convert', ...args]), { code: 2, stdout: '' }, args.join());
  }
});
