/** The end of a target whose disk is slow: it waits and says for what, but not for ever, and not if told twice. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { NvmeClient } from '../../src/client/nvme.ts';
import { native } from '../../src/native/index.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { FuseDisk, noFuse } from '../helpers/fuse.ts';
import { shortFolder } from '../helpers/rpc.ts';
import { Doorbell } from '../helpers/rpc-process.ts';
import { MIB, type Test } from '../helpers/target.ts';

const COMMANDS = 4;

/** A target with commands of a guest in flight that do not end, asked to end itself. */
async function stopWhileBusy(t: Test, ...more: string[]) {
  const disk = await FuseDisk.mount(t, MIB);
  const folder = shortFolder(t);
  const args = [
    ...['serve', '--disk', disk.path, '--socket-dir', folder, '--rpc-socket', join(folder, 'r')],
    ...['--cores', String(native.getAffinity().at(-1)), '--log-format', 'text', ...more],
  ];
  const running = new Doorbell(args, undefined, { STATE_DIRECTORY: folder });
  t.teardown(() => running.child.kill('SIGKILL'));
  let stderr = '';
  running.child.stderr.on('data', (text: string) => {
    stderr += text;
  });
  await running.printed(/user-device.*\n/);
  const client = await NvmeClient.connect(join(folder, 'cntrl'));
  t.teardown(() => client.close());
  const pair = await client.createQueuePair(1, 32);
  const buffer = client.memory.allocate(4096);
  client.memory.bytes(buffer, 4096).fill(0x5a);
  await disk.behave({ hold: true });
  const prp1 = client.memory.iova + buffer;
  for (let i = 0; i < COMMANDS; i++) {
    const write = { opcode: NvmOpcode.WRITE, nsid: 1, prp1, cdw10: 8 * i, cdw12: 7 };
    pair.execute(write).catch(() => {});
  }
  await disk.held(1);
  running.child.kill('SIGTERM');
  const logged = async (pattern: RegExp) => {
    while (!pattern.test(stderr)) {
      if (running.child.exitCode !== null || running.child.signalCode !== null) {
        throw new Error(`the target ended without ${pattern}:\n${stderr}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  await logged(/stopping reason=SIGTERM/);
  return { disk, running, folder, logged };
}

t.test('what is in flight finishes', { skip: noFuse }, async (t) => {
  const { disk, running, logged } = await stopWhileBusy(t);
  await logged(/still stopping waitingFor="[^"]+"/);
  await disk.behave({});
  const { code, stderr } = await running.outcome;
  t.equal(code, 0);
  t.match(stderr, /reason="the server closes"/);
  t.match(stderr, /stopped\n$/);
});

t.test('a second signal does not wait', { skip: noFuse }, async (t) => {
  const { disk, running, logged } = await stopWhileBusy(t);
  running.child.kill('SIGTERM');
  await logged(/second signal: exiting at once/);
  // The kernel lets no process go that has an operation at this disk.
  await disk.behave({});
  t.equal((await running.outcome).code, 128 + 15);
});

t.test('a disk that never answers is not waited for for ever', { skip: noFuse }, async (t) => {
  const { disk, running, folder, logged } = await stopWhileBusy(t, '--stop-timeout', '1');
  await logged(/error .*not stopped in time.*\n.*report written/);
  await disk.behave({});
  t.equal((await running.outcome).code, 128 + 9);
  const report = readdirSync(folder).find((name) => name.startsWith('doorbell-report-'));
  t.match(JSON.parse(readFileSync(join(folder, report ?? ''), 'utf8')), {
    reason: 'not stopped in time',
    // The guest's commands were left to themselves: what is waited for is the disk.
    controllers: [],
  });
});
