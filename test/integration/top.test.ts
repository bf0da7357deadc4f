/** `doorbell top` as a process: on a terminal and off it, against a target in this process. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { NvmeClient } from '../../src/client/nvme.ts';
import { canPty, ESC, Pty, SGR } from '../helpers/pty.ts';
import { shortFolder, startRealTarget, type TestTarget } from '../helpers/rpc.ts';
import { Doorbell, doorbell } from '../helpers/rpc-process.ts';

const CLI = fileURLToPath(new URL('../../src/cli/doorbell.js', import.meta.url));
const ENTER = new RegExp(`${ESC}\\[\\?1049h`);
const LEAVE = new RegExp(`${ESC}\\[\\?25h${ESC}\\[\\?1049l`);

/** A disk of 1 MiB on a socket. */
async function serve(t: Test, target: TestTarget): Promise<string> {
  const nqn = 'nqn.2026-11.io.doorbell:top';
  await target.call('nvmf_create_transport', { trtype: 'VFIOUSER' });
  await target.call('bdev_malloc_create', { name: 'ram', num_blocks: 2048, block_size: 512 });
  await target.call('nvmf_create_subsystem', { nqn, allow_any_host: true });
  await target.call('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: 'ram' } });
  const traddr = shortFolder(t);
  await target.call('nvmf_subsystem_add_listener', {
    nqn,
    listen_address: { trtype: 'VFIOUSER', traddr },
  });
  return join(traddr, 'cntrl');
}

t.test('off a terminal', async (t) => {
  const target = await startRealTarget(t);
  const socket = await serve(t, target);
  const client = await NvmeClient.connect(socket);
  t.teardown(() => client.close());
  const queue = await client.createQueuePair(1, 8);
  const prp1 = client.memory.iova + client.memory.allocate(4096);
  let going = true;
  const load = (async () => {
    while (going) {
      // Reads of 8 blocks.
      await queue.execute({ opcode: 2, nsid: 1, prp1, cdw12: 7 });
    }
  })();
  const top = (...args: string[]) => doorbell(['top', '-s', target.path, '-i', '0.3', ...args]);

  const json = await top('--once', '--json');
  t.equal(json.code, 0, json.stderr);
  t.equal(json.stdout.split('\n').length, 2, 'one object a line');
  const view = JSON.parse(json.stdout);
  t.ok(view.seconds >= 0.3, 'at least the interval');
  t.ok(view.total.readIops > 0, 'it sees the load');
  t.equal(view.total.writeIops, 0);
  // Counters are looked at while they change: one read may be in only one of them.
  const difference = (view.total.readBytes - 4096 * view.total.readIops) * view.seconds;
  t.ok(Math.abs(difference) <= 4096 + 1, 'in reads of 4 KiB');
  t.match(view.controllers, [{ socket, state: 'on', queues: 1, entries: 8 }]);
  t.match(view.controllers[0].namespaces, [{ nsid: 1, bdev: 'ram' }]);
  t.ok(view.reactors[0].load > 0);

  const text = await top('--once', '--sort', 'name');
  t.match(text.stdout, /^\d{4}-.*\ndoorbell \d.* 1 of 1 sockets in use[\s\S]*CONTROLLER/);
  t.notOk(text.stdout.includes('\x1b'));

  const running = new Doorbell(['top', '-s', target.path, '-i', '0.1']);
  await running.printed(/CONTROLLER[\s\S]*CONTROLLER/);
  running.child.stdout.destroy();
  t.match(await running.outcome, { code: 0, stderr: '' }, 'ends with its reader');
  going = false;
  await load;
});

t.test('no command is lost or counted twice', async (t) => {
  const COMMANDS = 2000;
  const target = await startRealTarget(t);
  const client = await NvmeClient.connect(await serve(t, target));
  t.teardown(() => client.close());
  const queue = await client.createQueuePair(1, 8);
  const prp1 = client.memory.iova + client.memory.allocate(4096);
  const top = new Doorbell(['top', '-s', target.path, '-i', '0.1', '--json']);
  await top.printed(/\n/);
  for (let i = 0; i < COMMANDS; i += 1) {
    await queue.execute({ opcode: 2, nsid: 1, prp1, cdw12: 7 });
  }
  const done = new Date().toISOString();
  const views = (text: string) =>
    text
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line));
  // Until a look that came after the last command.
  for (let lines = 1; ; lines += 1) {
    const [text] = await top.printed(new RegExp(`^(.*\\n){${lines}}`));
    if (views(text).some(({ time }) => time > done)) {
      break;
    }
  }
  top.child.kill('SIGTERM');
  const all = views((await top.outcome).stdout);
  type Rate = { iops: number; readBytes: number };
  const sum = (rate: (view: { total: Rate; controllers: { rate: Rate }[] }) => number) =>
    Math.round(all.reduce((result, view) => result + rate(view) * view.seconds, 0));
  t.equal(
    sum(({ total }) => total.iops),
    COMMANDS,
  );
  t.equal(
    sum(({ total }) => total.readBytes),
    COMMANDS * 4096,
  );
  t.equal(
    sum(({ controllers: [{ rate }] }) => rate.iops),
    COMMANDS,
  );
});

t.test('errors', async (t) => {
  const target = await startRealTarget(t);
  t.match(await doorbell(['top', '-s', join(shortFolder(t), 's')]), {
    code: 3,
    stdout: '',
    stderr: /^doorbell: cannot reach a target: No such file.*\n$/,
  });
  t.match(await doorbell(['top', '-s', target.path, '-i', '0']), { code: 2, stderr: /from 0\.1/ });
  t.match(await doorbell(['top', '-s', target.path, '--sort', 'x']), {
    code: 2,
    stderr: /iops, b/,
  });
});

t.test('on a terminal', { skip: canPty ? false : 'script(1) is not there' }, async (t) => {
  const target = await startRealTarget(t);
  const socket = await serve(t, target);
  const command = `${process.execPath} ${CLI} top -s ${target.path} -i 0.1`;
  const after = 'echo code=$?; stty -a | grep -wo -e -icanon -e icanon';

  await t.test('keys, and the end', async (t) => {
    const pty = new Pty(t, `${command}; ${after}`);
    await pty.shown(ENTER);
    await pty.shown(new RegExp(`${socket.slice(-12)} \\(no client\\)`));
    await pty.shown(/sorted by iops/);
    pty.type('l');
    await pty.shown(/sorted by latency/);
    pty.type('r');
    await pty.shown(/latency \(reversed\)/);
    pty.type('h');
    await pty.shown(/sort by occupied queues/);
    pty.type('h ');
    await pty.shown(/paused/);
    pty.type(' ');
    await target.call('bdev_malloc_create', { name: 'later', num_blocks: 8, block_size: 512 });
    await pty.shown(/bdev-created +\S*\s+bdev=later/);
    pty.type('/no such');
    await pty.shown(/filter: no such_/);
    await pty.shown(/none has that name/);
    pty.type('\r');
    await pty.shown(/only no such/);
    pty.type('/');
    pty.type('\x1b');
    await pty.shown(new RegExp(`${socket.slice(-12)} \\(no client\\)`));
    pty.type('q');
    await pty.shown(LEAVE);
    await pty.shown(/code=0\r\nicanon/);
    t.equal((await pty.outcome).code, 0);
  });

  for (const [signal, code] of [
    ['SIGTERM', 143],
    ['SIGHUP', 129],
    ['SIGINT', 130],
  ] as const) {
    await t.test(`${signal} gives the terminal back`, async (t) => {
      const pty = new Pty(t, `${command}; ${after}`);
      await pty.shown(/h help/);
      process.kill(pty.find('top'), signal);
      await pty.shown(LEAVE);
      await pty.shown(new RegExp(`code=${code}\\r\\nicanon`));
      await pty.outcome;
    });
  }

  await t.test('Ctrl-C', async (t) => {
    const pty = new Pty(t, `${command}; ${after}`);
    await pty.shown(/h help/);
    pty.type('\x03');
    await pty.shown(/code=130\r\nicanon/);
    await pty.outcome;
  });

  await t.test('a crash gives the terminal back, and then tells', async (t) => {
    const terminal = new URL('../../src/cli/top/terminal.js', import.meta.url).href;
    const script = [
      `import { Terminal } from "${terminal}"`,
      'new Terminal(process.stdout, process.stdin, { key() {}, redraw() {} })',
      'setTimeout(() => { throw new Error("boom") }, 50)',
    ].join(';');
    const pty = new Pty(t, `${process.execPath} --input-type=module -e '${script}'; ${after}`);
    await pty.shown(LEAVE);
    await pty.shown(/Error: boom/);
    await pty.shown(/code=1\r\nicanon/);
    await pty.outcome;
  });

  await t.test('NO_COLOR, and a narrow terminal', async (t) => {
    const pty = new Pty(t, command, { columns: 40, rows: 8 }, { NO_COLOR: '1' });
    await pty.shown(/h help|q quit|sorted by/);
    pty.type('q');
    const { output } = await pty.outcome;
    t.notMatch(output.replace(`${ESC}[0m${ESC}[?25h`, ''), SGR);
  });

  await t.test('a target that goes', async (t) => {
    const second = await startRealTarget(t);
    const pty = new Pty(t, `${process.execPath} ${CLI} top -s ${second.path} -i 0.1`);
    await pty.shown(/h help/);
    await second.server.close();
    await pty.shown(/trying again: cannot reach a target/);
    pty.type('q');
    t.equal((await pty.outcome).code, 0);
  });
});
