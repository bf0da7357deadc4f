/** One form of a configuration in the other: nothing is lost that is not told, and what is told is what is lost. */
import { deepStrictEqual, ok } from 'node:assert';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import t from 'tap';
import { stringify } from 'yaml';
import { completePlan } from '../../src/app/config/complete.ts';
import { type ConvertOptions, convertSource } from '../../src/app/config/convert.ts';
import { foldCalls } from '../../src/app/config/fold.ts';
import { compileSources } from '../../src/app/config/load.ts';
import { methodTable } from '../../src/app/config/methods.ts';
import { formatProblem } from '../../src/app/config/problem.ts';
import { parseSource } from '../../src/app/config/source.ts';
import { isConfigCall } from '../../src/target/model/apply.ts';
import type { ConfigCall } from '../../src/target/model/plan.ts';
import { EMPTY_PLAN, type Plan, planDocument } from '../../src/target/model/plan.ts';
import { type Change, change } from '../helpers/config.ts';

const methods = methodTable();
const folder = mkdtempSync(join(tmpdir(), 'doorbell-convert-'));
t.teardown(() => rmSync(folder, { recursive: true }));
const FILE = join(folder, 'file');

const plan = (text: string): Plan => compileSources([parseSource(text, FILE)], methods).plan;

function convert(text: string, options?: ConvertOptions): { text: string; losses: string[] } {
  const converted = convertSource(parseSource(text, FILE), methods, options);
  return {
    text: converted.text,
    losses: converted.losses.map((loss) => formatProblem(loss).replace(FILE, '')),
  };
}

const hex = (digits: number) =>
  fc
    .array(fc.constantFrom(...'0123456789abcdef'), { minLength: digits, maxLength: digits })
    .map((list) => list.join(''));
const maybe = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined, freq: 2 });
const size = fc
  .tuple(fc.integer({ min: 1, max: 9999 }), fc.constantFrom('M', 'G', 'T'))
  .map(([n, unit]) => `${n}${unit}`);
const limit = maybe(fc.integer({ min: 0, max: 9 }));
const common = {
  name: maybe(fc.constantFrom('a', 'b b', 'c/d', 'only/ram1', 'vm.1/null1')),
  'block-size': maybe(fc.constantFrom(512, 4096)),
  uuid: maybe(fc.uuid()),
  nguid: maybe(hex(32)),
  eui64: maybe(hex(16)),
  qos: maybe(fc.record({ iops: limit, mbps: limit, 'read-mbps': limit, 'write-mbps': limit })),
};
const disk = fc.oneof(
  fc.constantFrom('x.img', '/y.img'),
  fc.record({
    ...common,
    file: fc.constantFrom('x.img', 'z.img', '/dev/vg/z'),
    readonly: maybe(fc.boolean()),
    direct: maybe(fc.boolean()),
  }),
  fc.record({ ...common, ram: size }),
  fc.record({ ...common, null: size }),
  fc.record({
    ...common,
    nbd: fc.constantFrom('nbd://h/x', 'nbd+unix:///?socket=/s'),
    readonly: maybe(fc.boolean()),
    timeout: maybe(fc.constantFrom(0, 25, 60)),
    'reconnect-delay': maybe(fc.constantFrom(1, 5)),
    'open-timeout': maybe(fc.constantFrom(0, 9)),
    'on-reconnect': maybe(fc.constantFrom('fua', 'trust', 'fail-flush')),
  }),
);
const vm = fc.record({
  disks: fc
    .array(fc.tuple(disk, fc.boolean()), { maxLength: 4 })
    .map((disks) =>
      disks.map(([disk, numbered], i) =>
        typeof disk === 'string' || !numbered ? disk : { ...disk, nsid: 20 - i },
      ),
    ),
  serial: maybe(fc.constantFrom('S 1', '~')),
  model: maybe(fc.constant('A model')),
  nqn: maybe(hex(4).map((end) => `nqn.2026-11.io.example:${end}`)),
  'max-disks': maybe(fc.constantFrom(20, 32, 256)),
  sockets: maybe(hex(6).map((name) => [`/run/${name}`, `/run/${name}b`])),
});
const form = fc.oneof(
  vm,
  fc.record({
    vms: fc.dictionary(fc.constantFrom('only', 'vm.1', '2nd', 'disk'), vm),
    'trap-doorbells': maybe(fc.boolean()),
    'map-file-memory': maybe(fc.boolean()),
    'require-shared-memory': maybe(fc.boolean()),
  }),
);

/** As JSON has it: without what is undefined. */
const written = (value: unknown): string => stringify(JSON.parse(JSON.stringify(value)));

/** What a short form means, and undefined if it contradicts itself (a name or UUID that is there twice). */
function meaning(text: string): Plan | undefined {
  try {
    return plan(text);
  } catch {
    return undefined;
  }
}

t.test('the short form in SPDK’s is the same plan, and comes back', async (t) => {
  let good = 0;
  fc.assert(
    fc.property(form, (value) => {
      const text = written(value);
      const meant = meaning(text);
      if (meant === undefined) {
        return;
      }
      good += 1;
      const spdk = convert(text);
      deepStrictEqual(spdk.losses, [], text);
      deepStrictEqual(plan(spdk.text), meant, text);
      const again = convert(spdk.text, { format: good % 2 === 0 ? 'json' : 'yaml' });
      deepStrictEqual(again.losses, [], spdk.text);
      // Identifiers may be written out in one of them.
      deepStrictEqual(completePlan(plan(again.text), EMPTY_PLAN), completePlan(meant, EMPTY_PLAN));
    }),
    { numRuns: 150 },
  );
  t.ok(good > 50, `${good} of the forms meant something`);
});

t.test('what the process is told, and files that are to be made, are lost', async (t) => {
  const { text, losses } = convert(`
cores: 1-2
http: 9000
trap-doorbells: true
map-file-memory: true
require-shared-memory: true
vms:
  web:
    disks: [{ file: /web.img, size: 20G }]
`);
  t.strictSame(losses, [
    ':2:1: cores: left out: it is for the command line of doorbell serve',
    ':3:1: http: left out: it is for the command line of doorbell serve',
    ':9:31: vms.web.disks[0].size: left out: /web.img is not made any more (doorbell disk create makes one of 21474836480 bytes)',
  ]);
  t.match(plan(text).transport, {
    disable_mappable_bar0: true,
    map_file_memory: true,
    require_shared_memory: true,
    max_io_size: 1048576,
  });
});

t.test('what the short form cannot say is told, and the rest is converted', async (t) => {
  const nqn = 'nqn.2019-07.io.spdk:cnode0';
  const calls: [string, object][] = [
    ['bdev_set_options', { bdev_io_pool_size: 65535 }],
    ['bdev_aio_create', { name: 'a', filename: '/a', block_size: 512, nowait: true }],
    ['bdev_malloc_create', { name: 'm', num_blocks: 4, block_size: 512 }],
    ['bdev_null_create', { name: 'n', num_blocks: 2 ** 31, block_size: 512 }],
    ['bdev_delay_create', { base_bdev_name: 'n', name: 'd', ...latencies(1000) }],
    ['nvmf_create_transport', { trtype: 'VFIOUSER' }],
    ['nvmf_create_subsystem', { nqn, serial_number: 'SPDK0', min_cntlid: 2 }],
    ['nvmf_subsystem_add_host', { nqn, host: 'nqn.2026-11.io.example:h' }],
    ['nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: 'a', nsid: 2 } }],
    ['nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: 'd', nsid: 3 } }],
    ['nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: 'm', nsid: 4 } }],
    ['log_set_level', { level: 'DEBUG' }],
  ];
  const config = calls.map(([method, params]) => ({ method, params }));
  const { text, losses } = convert(JSON.stringify({ subsystems: [{ subsystem: 'x', config }] }));
  const said = (pattern: RegExp) => losses.filter((loss) => pattern.test(loss)).length;
  for (const pattern of [
    /nowait of bdev 'a'/,
    /bdev 'm', which has only 2048 bytes, and its namespace/,
    /bdev 'd' \(bdev_delay_create\), and its namespace/,
    /bdev 'n' is no namespace/,
    /max_queue_depth 256 \(it will be 1024\), .*max_io_size 131072/,
    /min_cntlid 2 of nqn/,
    /the hosts that .*cnode0 lets in, nqn.2026-11.io.example:h: who can open/,
    /has no listener/,
    /left out: log_set_level$/,
  ]) {
    t.equal(said(pattern), 1, `${pattern}: ${losses.join('\n')}`);
  }
  t.equal(losses.length, 9);
  t.match(losses[0], /^: left out: of nvmf_create_transport/);
  t.match(losses[1], /^:1:110: subsystems\[0\]\.config\[1\]: left out: nowait/);
  const { subsystems, bdevs } = plan(text);
  t.strictSame([...bdevs.keys()], ['a']);
  t.match(subsystems.get(nqn)?.params, { serial_number: 'SPDK0' });
  t.match([...(subsystems.get(nqn)?.namespaces.values() ?? [])], [{ bdev_name: 'a', nsid: 2 }]);
});

const latencies = (us: number) => ({
  avg_read_latency: us,
  p99_read_latency: us,
  avg_write_latency: us,
  p99_write_latency: us,
});

/** What foldCalls makes of changes as far as they are possible, with all identifiers. */
function planOfChanges(changes: readonly Change[]): Plan {
  const calls = changes
    .map((change) => change(folder))
    // Absent is absent.
    .map((call) => JSON.parse(JSON.stringify(call)) as ConfigCall)
    .filter(
      ({ method, params }) =>
        isConfigCall(method) && methods.violation(method, params) === undefined,
    )
    .map((call) => ({ ...call, place: { file: FILE, path: [] } }));
  const base = { method: 'nvmf_create_transport', params: { trtype: 'VFIOUSER' } };
  const first = { ...base, place: { file: FILE, path: [] } };
  return completePlan(foldCalls([first, ...calls], []).plan, EMPTY_PLAN);
}

t.test(
  'of any target in SPDK’s form, each thing is the same in the short form, or told',
  async (t) => {
    let kept = 0;
    fc.assert(
      fc.property(fc.array(change, { minLength: 60, maxLength: 200, size: 'max' }), (changes) => {
        const before = planOfChanges(changes);
        const { text, losses } = convert(JSON.stringify(planDocument(before)));
        const after = completePlan(plan(text), EMPTY_PLAN);
        const told = (what: string) => losses.some((loss) => loss.includes(what));
        deepStrictEqual([...after.subsystems.keys()].sort(), [...before.subsystems.keys()].sort());
        for (const [nqn, was] of before.subsystems) {
          const is = after.subsystems.get(nqn)!;
          for (const [key, value] of Object.entries(was.params)) {
            ok(isDeepStrictEqual(value, is.params[key]) || told(` of ${nqn}`), `${key} of ${nqn}`);
          }
          ok((was.allowAnyHost && was.hosts.size === 0) || told(`hosts that ${nqn}`));
          const folders = [...was.listeners.keys()];
          ok(
            isDeepStrictEqual(folders, [...is.listeners.keys()]) || told(`${nqn} has no listener`),
          );
          for (const [name, namespace] of was.namespaces) {
            kept += is.namespaces.has(name) ? 1 : 0;
            ok(
              isDeepStrictEqual(namespace, is.namespaces.get(name)) || told(`bdev '${name}'`),
              name,
            );
          }
        }
        for (const [name, was] of before.bdevs) {
          const is = after.bdevs.get(name);
          const same =
            isDeepStrictEqual(is?.limits, was.limits) &&
            isDeepStrictEqual({ ...is?.params, nowait: false }, { ...was.params, nowait: false });
          ok(same || told(`bdev '${name}'`), `${name}: ${text}`);
        }
      }),
      { numRuns: 150 },
    );
    t.ok(kept > 20, `${kept} namespaces came through`);
  },
);

t.test('several subsystems whose NQNs end alike have names of their own', async (t) => {
  const nqns = ['nqn.2019-07.io.a:vm', 'nqn.2019-07.io.b:vm', 'nqn.2014-08.org.x:_/'];
  const config = [
    { method: 'nvmf_create_transport', params: { trtype: 'VFIOUSER' } },
    ...nqns.flatMap((nqn, i) => [
      { method: 'nvmf_create_subsystem', params: { nqn, allow_any_host: true } },
      {
        method: 'nvmf_subsystem_add_listener',
        params: { nqn, listen_address: { trtype: 'VFIOUSER', traddr: `/run/${i}`, trsvcid: '0' } },
      },
    ]),
  ];
  const { text } = convert(JSON.stringify({ subsystems: [{ subsystem: 'nvmf', config }] }));
  const names = [...text.matchAll(/^ {2}(\S+):$/gm)].map(([, name]) => name);
  t.strictSame(names, ['vm', 'vm-2', 'vm-3']);
  t.strictSame([...plan(text).subsystems.keys()], nqns);
});

t.test('the same form again, in another format', async (t) => {
  const short = convert('# a disk\ndisks: [a.img]\ncores: 1', { to: 'short', format: 'json' });
  t.strictSame(JSON.parse(short.text), { disks: ['a.img'], cores: 1 });
  t.strictSame(short.losses, []);
  t.throws(() => convert('disks: [{}]'), /exactly one of/);
});
