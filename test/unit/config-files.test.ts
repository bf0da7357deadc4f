/** Configuration files: what they mean, and what is said about each mistake. Nothing is started. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Ajv } from 'ajv';
import t from 'tap';
import { parse } from 'yaml';
import { foldCalls } from '../../src/app/config/fold.ts';
import { compileSources } from '../../src/app/config/load.ts';
import { methodTable } from '../../src/app/config/methods.ts';
import { ConfigError, type Problem } from '../../src/app/config/problem.ts';
import { parseSource } from '../../src/app/config/source.ts';
import { SCHEMA_PATH, schemaText } from '../../src/app/reference.ts';
import { fileIdentity } from '../../src/bdev/file.ts';
import { planCalls, planDocument } from '../../src/target/model/plan.ts';
import { uuidFromName } from '../../src/util/uuid.ts';

const methods = methodTable();
const FILE = '/etc/doorbell/vms.yaml';

const load = (...texts: string[]) =>
  compileSources(
    texts.map((text, i) => parseSource(text, i === 0 ? FILE : `${FILE}${i}`)),
    methods,
  );

/** `LINE:COLUMN PATH: message` of every problem. */
function complaints(...texts: string[]): string[] {
  try {
    load(...texts);
  } catch (error) {
    if (error instanceof ConfigError) {
      return error.message.split('\n').map((line) => line.replace(`${FILE}:`, ''));
    }
    throw error;
  }
  return [];
}

const spdk = (section: string, ...config: object[]) =>
  JSON.stringify({ subsystems: [{ subsystem: section, config }] }, null, 2);

t.test('a disk in a line', async (t) => {
  const { plan, settings, sizes } = load('disks: [vm.img]');
  const [bdev] = plan.bdevs.values();
  const filename = '/etc/doorbell/vm.img';
  t.match(bdev, {
    name: 'disk/vm.img',
    create: 'bdev_uring_create',
    params: {
      filename,
      readonly: false,
      direct: false,
      uuid: uuidFromName(fileIdentity(filename)),
    },
    limits: {},
  });
  const [subsystem] = plan.subsystems.values();
  t.match(subsystem.params, {
    nqn: /^nqn\.2026-11\.io\.doorbell:disk-[0-9a-f-]{36}$/,
    serial_number: /^DB[0-9A-F]{16}$/,
    model_number: 'Doorbell Controller',
    max_namespaces: 32,
  });
  t.equal(subsystem.allowAnyHost, true);
  t.strictSame([...subsystem.namespaces.values()], [{ bdev_name: 'disk/vm.img' }]);
  t.match([...subsystem.listeners.keys()][0], /\/doorbell$/);
  t.match(plan.transport, { trtype: 'VFIOUSER', max_io_size: 1048576 });
  t.strictSame(settings, {});
  t.equal(sizes.size, 0);
});

t.test('everything that a file can say', async (t) => {
  const { plan, settings, sizes } = load(`
cores: 1-2
spin-us: 7
max-sleep-us: 8
trap-doorbells: true
map-file-memory: true
require-shared-memory: true
rpc-socket: rpc.sock
rpc-socket-mode: "660"
http: { address: 9000, token-file: token, origins: ["https://disks.example"] }
vms:
  web:
    socket: /run/doorbell/web/cntrl
    serial: WEB1
    model: A model
    nqn: nqn.2026-11.io.example:web
    max-disks: 4
    disks:
      - file: a.img
        size: 20G
        readonly: false
        direct: true
        block-size: 4096
        uuid: 11111111-2222-3333-4444-555555555555
        nguid: "00112233445566778899aabbccddeeff"
        eui64: "0011223344556677"
        nsid: 3
        qos: { iops: 1500, mbps: 1, read-mbps: 2, write-mbps: 3 }
      - { ram: 64M }
      - { ram: 64M, name: scratch }
      - null: 1T
  pair:
    sockets: [/run/a, /run/b]
`);
  t.strictSame(settings, {
    rpcSocket: '/etc/doorbell/rpc.sock',
    rpcAccess: { mode: 0o660 },
    cpus: [1, 2],
    spinUs: 7,
    maxSleepUs: 8,
    trapDoorbells: true,
    mapFileMemory: true,
    requireSharedMemory: true,
    http: {
      address: { host: '127.0.0.1', port: 9000 },
      tokenFile: '/etc/doorbell/token',
      origins: ['https://disks.example'],
    },
  });
  t.match(plan.transport, {
    disable_mappable_bar0: true,
    disable_shadow_doorbells: false,
    map_file_memory: true,
    require_shared_memory: true,
  });
  t.strictSame([...plan.bdevs.keys()], ['web/a.img', 'web/ram1', 'scratch', 'web/null1']);
  t.match(plan.bdevs.get('web/a.img'), {
    params: { block_size: 4096, direct: true, uuid: '11111111-2222-3333-4444-555555555555' },
    limits: {
      rw_ios_per_sec: 2000,
      rw_mbytes_per_sec: 1,
      r_mbytes_per_sec: 2,
      w_mbytes_per_sec: 3,
    },
  });
  t.match(plan.bdevs.get('web/null1')?.params, { num_blocks: 2 ** 31, block_size: 512 });
  t.equal(sizes.get('web/a.img')?.bytes, 20 * 2 ** 30);
  const web = plan.subsystems.get('nqn.2026-11.io.example:web');
  t.match(web?.params, { serial_number: 'WEB1', model_number: 'A model', max_namespaces: 4 });
  t.strictSame(web?.namespaces.get('web/a.img'), {
    nsid: 3,
    bdev_name: 'web/a.img',
    nguid: '00112233445566778899AABBCCDDEEFF',
    eui64: '0011223344556677',
    uuid: '11111111-2222-3333-4444-555555555555',
  });
  t.strictSame([...web!.listeners.keys()], ['/run/doorbell/web']);
  const pair = plan.subsystems.get('nqn.2026-11.io.doorbell:pair');
  t.strictSame([...pair!.listeners.keys()], ['/run/a', '/run/b']);
});

t.test('the same file always makes the same identifiers', async (t) => {
  const text = 'vms: {a: {disks: [{ram: 1M}, x.img]}, b: {disks: [{ram: 1M}, x2.img]}}';
  t.strictSame(planDocument(load(text).plan), planDocument(load(text).plan));
  const uuids = [...load(text).plan.bdevs.values()].map(({ params }) => params.uuid);
  t.equal(new Set(uuids).size, 4);
  const serials = [...load(text).plan.subsystems.values()].map(
    ({ params }) => params.serial_number,
  );
  t.equal(new Set(serials).size, 2);
});

t.test('YAML as people write it', async (t) => {
  const { plan } = load(`
vms:
  a: { disks: [ &disk { file: /a, direct: true } ] }
  b: { disks: [ { <<: *disk, file: /b, name: "0x10" } ] }
`);
  t.match(plan.bdevs.get('0x10')?.params, { filename: '/b', direct: true });
  const json = load('{ // a comment\n "vms": { "a": { "disks": [ "/a//b" /* its disk */ ] } } }');
  t.match([...json.plan.bdevs.values()][0].params, { filename: '/a/b' });
});

t.test('what is said about mistakes', async (t) => {
  const cases: readonly (readonly [string, ...(string | RegExp)[]])[] = [
    ['', ' must be a mapping with disks or vms'],
    ['- a', '1:1: must be a mapping with disks or vms'],
    ['disks: [', /^1:\d+: .*flow/i],
    ['disks: [a]\ndisks: [b]', /^2:1: Map keys must be unique$/],
    ['vms: *x', /Unresolved alias/],
    ['vms:\n  web:\n    sokcet: /a', "3:5: vms.web.sokcet: unknown key, did you mean 'socket'?"],
    ['nonsense: 1', '1:1: nonsense: unknown key'],
    ['disks:\n- file: a\n  size: 20X', '3:3: disks[0].size: must be a size like 20G'],
    ['disks:\n- file: a\n  size: 12', /^3:3: disks\[0\]\.size: '12' is not a size/],
    ['disks: [{ file: a, size: 4097, block-size: 4096 }]', /multiple of the 4096 bytes/],
    ['disks: [{}]', "1:9: disks[0]: a disk has exactly one of 'file', 'ram', 'null' and 'nbd'"],
    ['disks: [{ ram: 1M, file: a }]', /exactly one/],
    [
      'disks: [{ ram: 1M, direct: true }]',
      "1:20: disks[0].direct: only a disk with a 'file' has 'direct'",
    ],
    [
      'disks: [{ ram: 1G, timeout: 3 }]',
      "1:20: disks[0].timeout: only a disk with 'nbd' has 'timeout'",
    ],
    [
      'disks: [{ nbd: http://h }]',
      '1:11: disks[0].nbd: must be the address of an export, nbd://… or nbd+unix://…',
    ],
    [
      'disks: [7]',
      "1:9: disks[0]: must be a path, or a mapping with 'file', 'ram', 'null' or 'nbd'",
    ],
    ['disks: [{ file: a, readonly: yes }]', '1:20: disks[0].readonly: must be true or false'],
    ['disks: [{ file: a, block-size: 1024 }]', /block-size: must be 512 or 4096/],
    ['disks: [{ file: a, uuid: 1 }]', /uuid: must be a UUID/],
    ['disks: [{ file: a, nsid: 257 }]', /nsid: must be a whole number from 1 to 256/],
    ['disks: [{ file: a, nsid: 33 }]', /NSID 33 is more than the 32/],
    [
      'disks: [{ file: a, nsid: 2 }, { file: b, nsid: 2 }]',
      /^1:31: disks\[1\]: NSID 2 .* is that of bdev 'disk\/a' already$/,
    ],
    [
      'disks: [a/x, b/x]',
      "1:14: disks[1]: bdev 'disk/x' is there twice: give one of them another 'name'",
    ],
    ['disks: [{ file: a, qos: { iops: -1 } }]', /qos\.iops: must be a whole number/],
    ['disks: [a]\nsocket: /a\nsockets: [/b]', "2:1: socket: give either 'socket' or 'sockets'"],
    ['vms: { "a b": {} }', /^1:8: vms\."a b": the name of a VM/],
    [
      'vms: { a: { socket: /s }, b: { socket: /s } }',
      /b\.socket: nqn.*:a listens at \/s\/cntrl already/,
    ],
    [`socket: /${'x'.repeat(101)}`, /\(108 bytes, and the path of a socket has at most 107\)$/],
    ['vms: { a: { nqn: hello } }', /an NQN is nqn\./],
    [
      'vms: { a: { nqn: nqn.2026-11.io.doorbell:b }, b: {} }',
      /Unable to create subsystem nqn.2026-11.io.doorbell:b: it exists/,
    ],
    ['vms: { a: { max-disks: 1, disks: [/a, /b] } }', /has 1 namespaces already/],
    ['vms: { a: { serial: "123456789012345678901" } }', /serial: must be 1 to 20 printable/],
    ['cores: 3-1', /^1:1: cores: '3-1' is not a list of CPUs/],
    ['cores: 1\nreactors: 2', /^2:1: reactors: 'cores' says/],
    ['http: nonsense', /^1:1: http: It must be PORT/],
    ['rpc-socket-mode: "999"', /must be an octal mode/],
    ['rpc-socket-owner: "a:b:c"', /user, user:group or :group/],
  ];
  for (const [text, ...expected] of cases) {
    const found = complaints(text);
    t.equal(found.length, expected.length, `${text}: ${found.join('; ')}`);
    for (const [i, pattern] of expected.entries()) {
      t.match(found[i], pattern, text);
    }
  }
});

t.test('several mistakes are told at once, in the order of the file', async (t) => {
  const found = complaints('reactors: 0\nvms:\n  a: { disks: [{ file: x, size: big }] }\n  b: 5');
  t.strictSame(
    found.map((line) => line.split(':')[0]),
    ['1', '3', '4'],
  );
});

t.test('several files are one configuration', async (t) => {
  const { plan } = load('vms: { a: {} }', 'vms: { b: {} }', spdk('bdev', nullBdev('n')));
  t.equal(plan.subsystems.size, 2);
  t.ok(plan.bdevs.has('n'));
  t.match(complaints('reactors: 1', 'reactors: 1'), [/another file has a setting for 'reactors'/]);
  t.match(complaints('vms: { a: {} }', 'vms: { a: {} }'), [
    /1:8: vms\.a: Unable to create subsystem .*: it exists/,
    /.*/,
  ]);
});

const nullBdev = (name: string) => ({
  method: 'bdev_null_create',
  params: { name, num_blocks: 8, block_size: 512 },
});
const transport = { method: 'nvmf_create_transport', params: { trtype: 'VFIOUSER' } };

t.test("mistakes in SPDK's format", async (t) => {
  const cases: readonly (readonly [string, RegExp])[] = [
    ['{"subsystems": 5}', /^1:2: subsystems: must be a list$/],
    ['{"subsystems": [{}]}', /subsystems\[0\]: must have the name of a 'subsystem'/],
    ['{"subsystems": [{"subsystem": "bdev", "config": 1}]}', /config: must be a list, or null/],
    [spdk('bdev', {}), /config\[0\]: must have a 'method'/],
    [
      spdk('bdev', { method: 'bdev_nul_create' }),
      /^7:11: subsystems\[0\]\.config\[0\]\.method: there is no method 'bdev_nul_create', did you mean 'bdev_null_create'\?$/,
    ],
    [spdk('bdev', { method: 'bdev_rbd_create' }), /there is no method 'bdev_rbd_create'/],
    [spdk('bdev', { method: 'bdev_get_bdevs' }), /'bdev_get_bdevs' configures nothing/],
    [
      spdk('bdev', { method: 'bdev_null_create', params: { name: 'n', x: 1 } }),
      /\.params: bdev_null_create: (missing|unknown) key/,
    ],
    [spdk('bdev', nullBdev('n'), nullBdev('n')), /config\[1\]: there is a bdev 'n' already/],
    [
      spdk('bdev', { method: 'bdev_set_qos_limit', params: { name: 'n', rw_ios_per_sec: 1 } }),
      /there is no bdev 'n'/,
    ],
    [
      spdk('nvmf', { method: 'nvmf_create_transport', params: { trtype: 'TCP' } }),
      /: Invalid transport type 'TCP'/,
    ],
    [spdk('nvmf', transport, transport), /Transport type 'VFIOUSER' already exists/],
    [
      spdk('nvmf', {
        method: 'nvmf_subsystem_add_ns',
        params: { nqn: 'x', namespace: { bdev_name: 'n' } },
      }),
      /there is no subsystem x/,
    ],
    [
      spdk('nvmf', {
        method: 'nvmf_create_subsystem',
        params: { nqn: 'nqn.2026-11.io.x:a', min_cntlid: 9, max_cntlid: 8 },
      }),
      /invalid cntlid range \[9-8\]/,
    ],
    [
      spdk('bdev', { method: 'bdev_error_create', params: { base_name: 'n' } }),
      /there is no bdev 'n'/,
    ],
  ];
  for (const [text, pattern] of cases) {
    const found = complaints(text);
    t.equal(found.length, 1, `${text}: ${found.join('; ')}`);
    t.match(found[0], pattern);
  }
});

t.test('calls of SPDK that set what there is not', async (t) => {
  const names = [
    'sock_set_default_impl',
    'sock_impl_set_options',
    'iobuf_set_options',
    'accel_set_options',
    'vmd_enable',
    'framework_set_governor',
    'bdev_set_options',
    'bdev_raid_set_options',
    'bdev_iscsi_set_options',
    'bdev_nvme_set_options',
    'bdev_nvme_set_hotplug',
    'bdev_wait_for_examine',
    'nvmf_set_config',
    'nvmf_set_crdt',
    'keyring_file_add_key',
  ];
  const { ignored, calls } = load(
    spdk('bdev', ...names.map((method) => ({ method, params: { whatever: 1 } }))),
  );
  t.strictSame(
    ignored.map(({ method }) => method),
    names,
  );
  const settings = load(spdk('log', { method: 'log_set_flag', params: { flag: 'nvme' } }));
  t.match(settings.calls, [{ method: 'log_set_flag' }]);
  t.equal(calls.length, 0);
});

t.test('the scheduler', async (t) => {
  const set = (params: object) => spdk('scheduler', { method: 'framework_set_scheduler', params });
  t.equal(load(set({ name: 'static' })).plan.scheduler, undefined);
  t.strictSame(load(set({ name: 'dynamic', core_busy: 90 })).plan.scheduler, {
    name: 'dynamic',
    period: 1_000_000,
    load_limit: 20,
    core_limit: 80,
    core_busy: 90,
  });
  t.match(complaints(set({ name: 'gscheduler' })), [/no scheduler 'gscheduler'/]);
  t.match(complaints(set({ name: 'dynamic', mappings: '1:2' })), [/mappings/]);
  t.match(complaints(set({ name: 'dynamic', core_busy: 101 })), [/core_busy/]);
});

t.test('a plan is the document that it makes', async (t) => {
  const { plan: disks } = load(
    'vms: {a: {disks: [{ram: 1M, qos: {iops: 5}}, {file: /x, nsid: 9}, {null: 1G}]}}',
  );
  const { plan: tuned } = load(
    spdk('scheduler', { method: 'framework_set_scheduler', params: { name: 'dynamic' } }),
  );
  const plan = { ...disks, scheduler: tuned.scheduler };
  const problems: Problem[] = [];
  const calls = planCalls(plan);
  const place = { file: join('x'), path: [] };
  const again = foldCalls(
    calls.map((call) => ({ ...call, place })),
    problems,
  );
  t.strictSame(problems, []);
  t.strictSame(again.plan, plan);
});

// From dist/test/unit.
const EXAMPLES = fileURLToPath(new URL('../../../config/', import.meta.url));
const examples = readdirSync(EXAMPLES).filter((name) =>
  /^(?!prometheus|grafana|schema).*\.(yaml|json)$/.test(name),
);
const example = (name: string) => readFileSync(join(EXAMPLES, name), 'utf8');

t.test('the examples in config/', async (t) => {
  t.ok(examples.length >= 5);
  for (const name of examples) {
    const { plan } = load(example(name));
    t.ok(plan.bdevs.size > 0, `${name} has disks`);
    t.ok(plan.subsystems.size > 0);
  }
  const shared = load(example('shared-disk.yaml')).plan.subsystems.values().next().value;
  t.strictSame([...shared!.listeners.keys()], ['/run/doorbell/node1', '/run/doorbell/node2']);
  t.equal(shared?.namespaces.size, 2);
  const spdk = load(example('spdk.json'));
  t.strictSame([...spdk.plan.bdevs.keys()], ['root0', 'data0', 'scratch0']);
  t.match(spdk.ignored, [{ method: 'bdev_wait_for_examine' }]);
});

t.test('the schema for editors', async (t) => {
  t.equal(readFileSync(SCHEMA_PATH, 'utf8'), schemaText(), '`npm run docs` renews it');
  const validate = new Ajv({ strict: true, allowUnionTypes: true }).compile(
    JSON.parse(schemaText()) as object,
  );
  for (const name of examples.filter((name) => name.endsWith('.yaml'))) {
    t.ok(validate(parse(example(name))), `${name}: ${JSON.stringify(validate.errors)}`);
    t.match(example(name), /^# yaml-language-server: \$schema=schema\.json\n/);
  }
  for (const text of ['disks: [a.img, { ram: 1G }]\nhttp: 9000', 'vms: { a: { disks: [] } }']) {
    t.ok(validate(parse(text)), text);
  }
  for (const text of ['disk: []', 'disks: [{ fiel: a }]', 'vms: { a: { socket: 1 } }']) {
    t.notOk(validate(parse(text)), text);
  }
});

t.test('the scripts that start VMs', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'db-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const program = join(folder, 'program');
  writeFileSync(program, '#!/bin/sh\nprintf "%s\\0" "$@"\n', { mode: 0o755 });
  const run = (script: string, ...args: string[]) => {
    const env = { ...process.env, QEMU: program, CLOUD_HYPERVISOR: program, MEMORY: '1G' };
    const result = spawnSync(join(EXAMPLES, script), args, { env, encoding: 'utf8' });
    return { ...result, words: result.stdout.split('\0').slice(0, -1) };
  };
  const socket = join(folder, 'a"b', 'cntrl');

  const qemu = run('qemu.sh', join(folder, 'a"b'), '-nographic');
  t.match(qemu, { status: 0, stderr: '' });
  t.strictSame(JSON.parse(qemu.words[qemu.words.indexOf('-device') + 1]), {
    driver: 'vfio-user-pci',
    socket: { type: 'unix', path: socket },
  });
  t.ok(qemu.words.includes('memory-backend-memfd,id=mem,size=1G,share=on'));
  t.equal(qemu.words[qemu.words.indexOf('-m') + 1], '1G');
  t.equal(qemu.words.at(-1), '-nographic');

  const cloud = run('cloud-hypervisor.sh', join(folder, 'a"b'), 'vmlinux', '-v');
  t.match(cloud, { status: 0, stderr: '' });
  t.equal(cloud.words[cloud.words.indexOf('--user-device') + 1], `socket=${socket}`);
  t.equal(cloud.words[cloud.words.indexOf('--memory') + 1], 'size=1G,shared=on');
  t.equal(cloud.words.at(-1), '-v');

  for (const script of ['qemu.sh', 'cloud-hypervisor.sh']) {
    t.match(run(script), { status: 2, stdout: '', stderr: /^Usage: .*FOLDER/ }, script);
  }
});

t.test(
  'the VM at the top of a file has the name of its socket; sockets without a name are in one folder',
  async (t) => {
    const compile = (text: string, socketDir?: string) =>
      compileSources([parseSource(text, '/etc/doorbell/vms.yaml')], methods, { socketDir }).plan;
    const names = ['/run/a', '/run/b'].flatMap((folder) => [
      ...compile('disks: [{ ram: 1M }]', folder).subsystems.keys(),
    ]);
    t.not(names[0], names[1], 'two targets of a host');
    t.strictSame(
      [...compile('{ disks: [x, { ram: 1M }], socket: /run/a/cntrl }').subsystems.keys()],
      [names[0]],
      'it stays when disks come',
    );
    const [web] = compile('vms: { web: {} }', '/run/a').subsystems.values();
    t.strictSame([...web.listeners.keys()], ['/run/a/web']);
  },
);
