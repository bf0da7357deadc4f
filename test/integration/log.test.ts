/** What a target logs of its clients: who came, who went and why, who misbehaved; and no more than that. */
import t from 'tap';
import { succeeded } from '../../src/client/nvme.ts';
import { VfioClient } from '../../src/client/vfio.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { createLogger } from '../../src/util/log.ts';
import { TestTarget } from '../helpers/target.ts';

t.test('one line for a client that comes, misbehaves and goes', async (t) => {
  const lines: Record<string, unknown>[] = [];
  const sink = (line: string): boolean => {
    lines.push(JSON.parse(line));
    return true;
  };
  const { log, control } = createLogger({ level: 'info', format: 'json', sink });
  const target = await TestTarget.start(t, { log });
  const { nqn, socket } = await target.serve(await target.null(1024 * 1024));
  lines.length = 0;
  const client = VfioClient.connect(socket);
  await client.version();
  t.match(lines, [
    { component: 'vfio-user', level: 30, msg: 'client connected', nqn, socket, cntlid: Number },
  ]);
  lines.length = 0;
  for (let i = 0; i < 1000; i++) {
    await t.rejects(client.regionWrite(0, 2 ** 40, Buffer.alloc(4)));
  }
  t.equal(lines.length, 20 - 1, 'a limited number of lines, shared with that of its coming');
  t.match(lines[0], { level: 40, msg: 'command refused', command: 'REGION_WRITE', nqn, socket });
  lines.length = 0;
  client.close();
  const gone = VfioClient.connect(socket);
  await gone.version();
  gone.close();
  t.strictSame(lines, [], 'nor can it by coming and going');

  control.setFlag('nvme', true);
  const driver = await target.connect({ nqn, socket });
  t.not(lines.length, 0);
  t.ok(
    lines.every(({ component, level }) => component === 'nvme' && level === 20),
    'debug lines of a component whose flag is set',
  );
  driver.close();
});

t.test('why a client went, and how long it was there', async (t) => {
  const lines: Record<string, unknown>[] = [];
  let tellGone = (): void => {};
  const gone = new Promise<void>((resolve) => {
    tellGone = resolve;
  });
  const sink = (line: string): boolean => {
    lines.push(JSON.parse(line));
    if (lines.at(-1)?.msg === 'client gone') tellGone();
    return true;
  };
  const { log } = createLogger({ level: 'info', format: 'json', sink });
  const target = await TestTarget.start(t, { log });
  const { nqn, socket } = await target.serve(await target.null(1024 * 1024));
  const client = await target.connect({ nqn, socket });
  const pair = await client.createQueuePair(1, 32);
  const prp1 = client.memory.iova + client.memory.allocate(4096);
  const command = { nsid: 1, prp1, cdw12: 7 };
  for (const opcode of [NvmOpcode.READ, NvmOpcode.READ, NvmOpcode.WRITE, NvmOpcode.FLUSH]) {
    succeeded(await pair.execute({ ...command, opcode }));
  }
  await pair.execute({ ...command, opcode: NvmOpcode.READ, cdw10: 0x7fff_ffff });
  client.close();
  await gone;
  t.match(lines.at(-1), {
    level: 30,
    component: 'vfio-user',
    nqn,
    socket,
    reason: 'the peer closed the connection',
    seconds: Number,
    reads: 2,
    writes: 1,
    flushes: 1,
    errors: 1,
  });
});
