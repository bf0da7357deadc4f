/** `doorbell identify` as a process, against a target in this one. */
import { createServer } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { NvmeClient } from '../../src/client/nvme.ts';
import { Csts, Register } from '../../src/spec/registers.ts';
import { doorbell } from '../helpers/rpc-process.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const UUID = '6a1b1d2c-0f0e-4d5c-8b9a-78695a4b3c2d';

t.test('a controller with two namespaces', async (t) => {
  const target = await TestTarget.start(t);
  const served = await target.serve(await target.malloc(MIB));
  const second = await target.file(target.image(2 * MIB), { blockSize: 4096, readonly: true });
  await target.target.addNamespace(served.nqn, second, {
    nsid: 3,
    uuid: UUID,
    eui64: '01'.repeat(8),
  });
  const identify = (...args: string[]) => doorbell(['identify', served.socket, ...args]);

  const { code, stdout, stderr } = await identify('--json');
  t.equal(code, 0, stderr);
  const json = JSON.parse(stdout);
  t.match(json, {
    socket: served.socket,
    pci: { vendor_id: 0x4e58, device_id: 1, class: 0x010802 },
    registers: { vs: '0x20000', cc: '0x0', csts: '0x0' },
    controller: { vid: 0x4e58, mn: 'Doorbell Controller'.padEnd(40), subnqn: served.nqn, nn: 32 },
    nsids: [1, 3],
    namespaces: [
      { nsid: 1, nsze: 2048, lbafs: [{ ms: 0, ds: 9, rp: 0 }] },
      {
        nsid: 3,
        nsze: 512,
        nsattr: 1,
        lbafs: [{ ds: 12 }],
        descriptors: { uuid: UUID, eui64: '01'.repeat(8) },
      },
    ],
    smart_log: { temperature: 313, critical_warning: 0 },
  });

  t.match((await identify()).stdout, /^model +: Doorbell[\s\S]*namespaces: 2 of[\s\S]*write prot/m);
  const controller = (await identify('-c', '-H')).stdout;
  t.match(controller, /^cap[\s\S]*^NVME Identify Controller:$[\s\S]*^Smart Log/m);
  t.notMatch(controller, /Identify Namespace/);
  const namespace = (await identify('--namespace', '3')).stdout;
  t.match(namespace, new RegExp(`^NVME Identify Namespace 3:[\\s\\S]*uuid +: ${UUID}`));
  t.notMatch(namespace, /Identify Controller/);
  const all = (await identify('--all')).stdout;
  t.match(all, /Controller:[\s\S]*Namespace 1:[\s\S]*Namespace 3:/);
  t.match(await identify('-n', '2'), {
    code: 1,
    stdout: '',
    stderr: /^doorbell: .* has no active namespace 2: it has 1, 3\n$/,
  });
  t.match(await identify('-n', '1', '-c'), { code: 2, stderr: /cannot be used with/ });
  t.match(await identify('-n', '0'), { code: 2, stderr: /--namespace.*from 1/ });
});

t.test('a connected client is left alone', async (t) => {
  const target = await TestTarget.start(t);
  const served = await target.serve(await target.malloc(MIB));
  const vm = await NvmeClient.connect(served.socket);
  t.teardown(() => vm.close());
  const queue = await vm.createQueuePair(1, 8);
  t.match(await doorbell(['identify', served.socket]), {
    code: 3,
    stdout: '',
    stderr: /^doorbell: .* is busy: a client is connected.*\n$/,
  });
  t.equal((await vm.readRegister(Register.offset.csts)) & Csts.mask.rdy, Csts.mask.rdy);
  t.equal((await queue.execute({ opcode: 0, nsid: 1 })).status, 0, 'its queue works');
  vm.close();
  t.match(await doorbell(['identify', served.socket]), { code: 0 }, 'and then it is free');
});

t.test('what is no vfio-user socket', async (t) => {
  const { folder } = await TestTarget.start(t);
  t.match(await doorbell(['identify', join(folder, 'none')]), {
    code: 3,
    stderr: /^doorbell: cannot connect to .*none: No such file or directory.*\n$/,
  });
  const path = join(folder, 'silent');
  const silent = createServer(() => {}).listen(path);
  t.teardown(() => silent.close());
  t.match(await doorbell(['identify', path, '--timeout', '1']), {
    code: 3,
    stderr: /^doorbell: no answer from .* within 1 s/,
  });
  const other = join(folder, 'other');
  const chatty = createServer((socket) => {
    socket.on('error', () => {});
    socket.end('HTTP/1.1 400 Bad Request\r\n\r\n');
  }).listen(other);
  t.teardown(() => chatty.close());
  t.match(await doorbell(['identify', other]), { code: 1, stderr: /not answer as an NVMe/ });
});
