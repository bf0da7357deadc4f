/** Reports: of a crash, of a reactor that died, on demand; what they say about guests, and what they never say. */
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test as Tap } from 'tap';
import { NvmeClient, succeeded } from '../../src/client/nvme.ts';
import { native } from '../../src/native/index.ts';
import type { PlaneMessage } from '../../src/reactor/control.ts';
import { callRpc } from '../../src/rpc/client.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import type { ControllerDiagnosis } from '../../src/target/diagnosis.ts';
import type { TargetEvent } from '../../src/target/events.ts';
import { reportFolder, writeReport } from '../../src/target/report.ts';
import type { Snapshot } from '../../src/target/snapshot.ts';
import { shortFolder } from '../helpers/rpc.ts';
import { Doorbell } from '../helpers/rpc-process.ts';
import { MIB, type Test, TestTarget } from '../helpers/target.ts';

interface Report {
  readonly reason: string;
  readonly error?: string;
  readonly events: readonly TargetEvent[];
  readonly snapshot: Snapshot;
  readonly controllers: readonly (ControllerDiagnosis & { nqn: string; socket: string })[];
}

const SECRET = 'the guest keeps this to itself';

/** Writes and reads a block, and asks for one that is not there. */
async function work(client: NvmeClient): Promise<void> {
  const pair = await client.createQueuePair(1, 32);
  const buffer = client.memory.allocate(4096);
  client.memory.bytes(buffer, 4096).set(Buffer.from(SECRET));
  const prp1 = client.memory.iova + buffer;
  const transfer = { nsid: 1, prp1, cdw12: 7 };
  succeeded(await pair.execute({ ...transfer, opcode: NvmOpcode.WRITE }));
  succeeded(await pair.execute({ ...transfer, opcode: NvmOpcode.READ }));
  await pair.execute({ ...transfer, opcode: NvmOpcode.READ, cdw10: 0x7fff_ffff });
}

function check(t: Tap, folder: string, reason: string): Report {
  const names = readdirSync(folder).filter((name) => name.startsWith('doorbell-report-'));
  t.equal(names.length, 1);
  const path = join(folder, names[0]);
  t.equal(statSync(path).mode & 0o777, 0o600);
  const text = readFileSync(path, 'utf8');
  t.notMatch(text, SECRET, 'no data of the guest');
  const report: Report = JSON.parse(text);
  t.equal(report.reason, reason);
  const [controller] = report.controllers;
  t.match(controller.recent, [
    {
      qid: 1,
      commands: [
        { opcode: '0x1', nsid: 1 },
        { opcode: '0x2', nsid: 1 },
        { opcode: '0x2', nsid: 1 },
      ],
      completions: [
        { sqid: 1, status: '0x0' },
        { sqid: 1, status: '0x0' },
        { sqid: 1, status: '0x80' },
      ],
    },
  ]);
  t.match(controller.nvme.registers, { cc: { enabled: true }, csts: { ready: true } });
  t.ok(report.events.some(({ type }) => type === 'controller-enabled'));
  return report;
}

/** Throws where nobody catches it, when SIGUSR2 comes. */
const CRASH = encodeURIComponent(`process.on('SIGUSR2', () => { throw new Error('boom'); })`);

async function start(t: Test, folder: string, ...more: string[]) {
  mkdirSync(join(folder, 'state'), { recursive: true });
  const rpc = join(folder, 'rpc');
  const args = [
    ...['serve', '--default-disk', join(folder, 'disk.img'), '--disk-size', '1M'],
    ...['--socket-dir', folder, '--rpc-socket', rpc, '--log-level', 'warn'],
    ...['--cores', String(native.getAffinity().at(-1)), ...more],
  ];
  const env = {
    STATE_DIRECTORY: join(folder, 'state'),
    NODE_OPTIONS: `--import=data:text/javascript,${CRASH}`,
  };
  const running = new Doorbell(args, undefined, env);
  t.teardown(() => running.child.kill('SIGKILL'));
  await running.printed(/user-device.*\n/);
  const client = await NvmeClient.connect(join(folder, 'cntrl'));
  t.teardown(() => client.close());
  await work(client);
  return { running, rpc, state: join(folder, 'state') };
}

t.test('a bug of ours', async (t) => {
  const { running, state } = await start(t, shortFolder(t));
  running.child.kill('SIGUSR2');
  const { code, stderr } = await running.outcome;
  t.equal(code, 128 + 6, 'SIGABRT');
  t.match(stderr, /"level":60.*boom/);
  t.match(stderr, /report written/);
  const report = check(t, state, 'uncaught exception');
  t.match(report.error, /^Error: boom\n {4}at /);
});

t.test('with a state folder it is there, and the next start tells of it', async (t) => {
  const folder = shortFolder(t);
  const kept = join(folder, 'kept');
  const first = await start(t, folder, '--state-dir', kept);
  await callRpc(first.rpc, 'doorbell_dump', undefined);
  first.running.child.kill('SIGUSR2');
  t.equal((await first.running.outcome).code, 128 + 6);
  t.strictSame(readdirSync(first.state), []);
  const reports = () => readdirSync(kept).filter((name) => name.startsWith('doorbell-report-2'));
  const [, crash] = reports().sort();
  for (const expected of [1, 0]) {
    const { running } = await start(t, folder, '--state-dir', kept);
    running.child.kill('SIGTERM');
    const { code, stderr } = await running.outcome;
    t.equal(code, 0);
    const lines = stderr.split('\n').filter((line) => line.includes('left a report'));
    t.equal(lines.length, expected, 'once, and not of what was asked for');
    if (expected === 1) {
      t.match(JSON.parse(lines[0]), {
        level: 40,
        path: join(kept, crash),
        reason: 'uncaught exception',
      });
    }
  }
  t.equal(reports().length, 2, 'they are kept');
});

t.test('on demand', async (t) => {
  const { running, rpc, state } = await start(t, shortFolder(t));
  const { path } = (await callRpc(rpc, 'doorbell_dump', undefined)) as { path: string };
  t.equal(join(state, readdirSync(state)[0]), path);
  check(t, state, 'doorbell_dump');
  running.child.kill('SIGQUIT');
  while (readdirSync(state).length < 2) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  t.match(await callRpc(rpc, 'bdev_get_bdevs', undefined), [{}], 'it goes on');
  running.child.kill('SIGTERM');
  t.match(await running.outcome, { code: 0 });
});

t.test('while reactors are dead, guests gone, folders full', async (t) => {
  const target = await TestTarget.start(t);
  const client = await target.connect(await target.serve(await target.malloc(MIB)));
  await work(client);
  await new Promise((resolve) => setTimeout(resolve, 1100));
  const nothing = undefined as unknown as PlaneMessage;
  await t.rejects(target.pool.request(0, nothing), { name: 'ReactorLostError' });
  const folder = shortFolder(t);
  writeFileSync(join(folder, 'doorbell-report-mine.json'), 'not one of ours');
  let last = '';
  for (let i = 0; i < 20; i++) {
    last = writeReport(target.target, folder, `report ${i}`, 'why');
  }
  t.match(JSON.parse(readFileSync(last, 'utf8')), { reason: 'report 19', error: 'why' });
  const names = readdirSync(folder);
  t.equal(names.length, 16 + 1, 'the newest are kept, and what is not ours');
  t.ok(names.includes('doorbell-report-mine.json'));
  t.throws(() => writeReport(target.target, join(folder, 'none'), 'x'), { code: 'ENOENT' });
});

t.test('the folder', async (t) => {
  t.equal(reportFolder(undefined, { STATE_DIRECTORY: '/a:/b' }), '/a');
  t.equal(reportFolder('/c', { STATE_DIRECTORY: '/a:/b' }), '/c');
  t.equal(reportFolder(undefined, {}), undefined);
});
