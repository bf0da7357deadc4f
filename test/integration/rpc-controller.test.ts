/** doorbell_get_controller: what a guest did to its controller is shown, and what is wrong is said. */
import t, { type Test } from 'tap';
import { NvmeClient, type NvmeClientOptions, succeeded } from '../../src/client/nvme.ts';
import { AdminOpcode } from '../../src/spec/admin.ts';
import { AsyncEventConfig, Fid } from '../../src/spec/features.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { Cc, Csts, DOORBELL_OFFSET, Register } from '../../src/spec/registers.ts';
import { PciRegion } from '../../src/spec/vfio-user.ts';
import type { ControllerDiagnosis } from '../../src/target/diagnosis.ts';
import { serveBdev, startRealTarget, type TestTarget } from '../helpers/rpc.ts';

const NQN = 'nqn.2026-11.io.doorbell:c';

interface Shown extends ControllerDiagnosis {
  readonly socket: string;
}

/** Two listeners of a subsystem with a RAM disk. Resolves with their sockets. */
async function serve(t: Test, target: TestTarget): Promise<string[]> {
  await target.call('bdev_malloc_create', { name: 'm', block_size: 512, num_blocks: 2048 });
  return serveBdev(t, target, NQN, 'm', ['a', 'b']);
}

async function connect(
  t: Test,
  socket: string,
  options: NvmeClientOptions = {},
): Promise<NvmeClient> {
  const client = await NvmeClient.connect(socket, options);
  t.teardown(() => client.close());
  return client;
}

t.test('which controller', async (t) => {
  const target = await startRealTarget(t);
  const { call, refusal } = target;
  const [a, b] = await serve(t, target);
  t.match(await refusal('doorbell_get_controller'), { code: -32602, message: /nqn.*socket/ });
  t.match(await refusal('doorbell_get_controller', { nqn: NQN, socket: a }), { code: -32602 });
  t.match(await refusal('doorbell_get_controller', { nqn: 'nqn.2026-11.x:none' }), {
    code: -32602,
    message: /'nqn'/,
  });
  t.match(await refusal('doorbell_get_controller', { socket: '/nowhere' }), {
    code: -32602,
    message: /'socket'.*\/nowhere/,
  });
  t.match(await refusal('doorbell_get_controller', { nqn: NQN }), {
    code: -19,
    message: /no client is connected/,
  });
  await connect(t, a);
  await connect(t, b);
  t.match(await call('doorbell_get_controller', { nqn: NQN }), [
    { socket: a, cntlid: 1 },
    { socket: b, cntlid: 2 },
  ]);
  t.match(await call('doorbell_get_controller', { nqn: NQN, cntlid: 2 }), [{ socket: b }]);
  t.match(await call('doorbell_get_controller', { socket: a }), [{ cntlid: 1 }]);
  t.match(await refusal('doorbell_get_controller', { socket: a, cntlid: 2 }), { code: -19 });
});

t.test('what the guest did', async (t) => {
  const target = await startRealTarget(t);
  const [socket] = await serve(t, target);
  const show = async (): Promise<Shown> =>
    ((await target.call('doorbell_get_controller', { socket })) as Shown[])[0];
  const client = await connect(t, socket, { interrupts: true });
  const pair = await client.createQueuePair(1, 16, 4);
  const offset = client.memory.allocate(4096);
  client.memory.bytes(offset, 4096).fill(0xa5);
  const prp1 = client.memory.iova + offset;
  for (let i = 0; i < 5; i++) {
    succeeded(await pair.execute({ opcode: NvmOpcode.WRITE, nsid: 1, prp1, cdw10: i }));
  }
  succeeded(
    await client.admin.execute({
      opcode: AdminOpcode.SET_FEATURES,
      cdw10: Fid.ASYNC_EVENT_CONFIG,
      cdw11: AsyncEventConfig.mask.namespaceAttribute,
    }),
  );
  const well = await show();
  t.strictSame(well.findings, [], 'nothing is wrong');
  t.match(well, {
    socket,
    cntlid: 1,
    nvme: {
      registers: {
        cap: { maxQueueEntries: 256, doorbellStride: 4, minPageSize: 4096, timeoutMs: 30000 },
        vs: { version: '2.0.0' },
        cc: { enabled: true, sqEntryBytes: 64, cqEntryBytes: 16, shutdown: 'none' },
        csts: { value: '0x1', ready: true, failed: false, shutdown: 'none' },
        aqa: { sqSize: 32, cqSize: 32 },
        asq: { value: /^0x1000/ },
      },
      // CREATE_IO_CQ, CREATE_IO_SQ, SET_FEATURES
      adminQueue: { sqSize: 32, head: 3, tail: 3, cqHead: 3, cqTail: 3, phase: 1, stopped: false },
      features: { ASYNC_EVENT_CONFIG: AsyncEventConfig.mask.namespaceAttribute },
      asyncEvents: { requests: 0, events: 0 },
      lastAdminCommand: {
        opcode: '0x9',
        name: 'SET_FEATURES',
        cdw10: '0xb',
        status: '0x0',
        statusName: 'SUCCESS',
      },
    },
    queues: [
      {
        qid: 1,
        cqid: 1,
        size: 16,
        head: 5,
        tail: 5,
        inFlight: 0,
        outstanding: 0,
        stopped: false,
        cqSize: 4,
        cqHead: 1,
        cqTail: 1,
        phase: 0,
        interrupts: true,
        vector: 1,
      },
    ],
    dma: {
      count: 1,
      bytes: client.memory.size,
      regions: [{ iova: '0x100000000', size: client.memory.size, writable: true }],
    },
    interrupts: { mode: 'msix' },
  });
  t.match(well.interrupts.vectors.slice(0, 2), [
    { vector: 0, connected: true, masked: false },
    { vector: 1, connected: true, masked: false },
  ]);
  t.notMatch(JSON.stringify(well), /a5a5|165,165/, 'no data of the guest');

  void client.admin.execute({ opcode: AdminOpcode.ASYNC_EVENT_REQUEST }).catch(() => {});
  const refused = await client.admin.execute({ opcode: AdminOpcode.IDENTIFY, cdw10: 0x77 });
  t.not(refused.status, 0);
  t.match(await show(), {
    nvme: {
      asyncEvents: { requests: 1 },
      lastAdminCommand: { name: 'IDENTIFY', status: '0x2', statusName: 'INVALID_FIELD' },
    },
  });
});

t.test('what is wrong', async (t) => {
  const target = await startRealTarget(t);
  const [socket, other] = await serve(t, target);
  const findings = async (where = socket): Promise<readonly string[]> =>
    ((await target.call('doorbell_get_controller', { socket: where })) as Shown[])[0].findings;
  const client = await connect(t, socket, { interrupts: true });
  const pair = await client.createQueuePair(1, 16, 4);
  const prp1 = client.memory.iova + client.memory.allocate(4096);

  // A driver that takes no completions: three fill a queue of four.
  pair.onInterrupt = () => {};
  for (let i = 0; i < 6; i++) {
    void pair.execute({ opcode: NvmOpcode.READ, nsid: 1, prp1 }).catch(() => {});
  }
  let found = await findings();
  while (found.length === 0) {
    found = await findings();
  }
  t.match(found, [/^queue 1: completion queue 1 is full/]);
  await client.vfio.disableIrqs(2);
  t.match(await findings(), [
    /completion queue 1 is full/,
    /^queue 1: the guest has not seen all completions, and vector 1 signals nowhere/,
  ]);

  const { iova, size } = client.memory;
  await client.vfio.dmaUnmap(iova, size);
  t.match(await findings(), [
    'the client has mapped no memory',
    'the memory of the admin queue is unmapped: it rests',
    /^queue 1: its memory/,
    /full/,
    /nowhere/,
  ]);

  const second = await connect(t, other);
  await second.disable();
  t.strictSame(await findings(other), ['the guest has not enabled the controller']);
  await second.writeRegister(Register.offset.aqa, 0);
  await second.writeRegister(Register.offset.cc, Cc.mask.en);
  t.match(await findings(other), [/^the controller has failed \(AQA gives.*\) and waits/]);
});

t.test('a VM that does not share its memory, and answers no messages about it', async (t) => {
  const target = await startRealTarget(t);
  const [socket] = await serve(t, target);
  const findings = async (): Promise<readonly string[]> =>
    ((await target.call('doorbell_get_controller', { socket })) as Shown[])[0].findings;
  const client = await connect(t, socket);
  await client.disable();
  await client.vfio.dmaUnmapAll();
  const iova = 0x8000_0000;
  await client.vfio.dmaMap({ iova, size: 0x10000 });
  await client.vfio.dmaMap({ iova: iova + 0x10000, size: 0x10000 });
  const none =
    'the client shares none of its 131072 bytes of memory: they came without a file descriptor';
  t.strictSame(await findings(), [none, 'the guest has not enabled the controller']);

  await client.writeRegister(Register.offset.aqa, 0x1f_001f);
  await client.writeRegister(Register.offset.asq, iova + 0x1f000);
  await client.writeRegister(Register.offset.asq + 4, 0);
  await client.writeRegister(Register.offset.acq, iova);
  await client.writeRegister(Register.offset.acq + 4, 0);
  await client.writeRegister(Register.offset.cc, Cc.mask.en);
  client.vfio.memory = undefined;
  while (!Csts.decode(await client.readRegister(Register.offset.csts)).rdy) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await client.writeRegister(DOORBELL_OFFSET, 1);
  const why =
    /the VM does not share its memory \(QEMU: .*share=on; Cloud Hypervisor: .*shared=on\), and a message that asked for it got ENOTSUP/;
  while (!Csts.decode(await client.readRegister(Register.offset.csts)).cfs) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  t.match(await findings(), [none, why]);
  const told = (await target.call('doorbell_get_events')) as { message?: string }[];
  t.ok(
    told.some(({ message }) => message !== undefined && why.test(message)),
    'an event',
  );

  // What is unmapped, or never was there, is another matter.
  await client.disable();
  await client.vfio.dmaUnmap(iova + 0x10000, 0x10000);
  await client.writeRegister(Register.offset.cc, Cc.mask.en);
  // The reset may still be under way, at whose end the controller is enabled.
  while (!Csts.decode(await client.readRegister(Register.offset.csts)).cfs) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  t.match(await findings(), [/65536 bytes/, /where the VM has no memory that is mapped here/]);
  await client.disable();
  await client.vfio.dmaUnmapAll();
  t.match(await findings(), ['the client has mapped no memory', /not enabled/]);
  await client.vfio.dmaMap({ ...client.memory });
  await client.enable();
  t.strictSame(await findings(), []);

  // A file that the VM maps for itself (share=off): what the guest writes is not there.
  const offset = client.memory.allocate(8192);
  await client.disable();
  await client.writeRegister(Register.offset.asq, client.memory.iova + offset);
  await client.writeRegister(Register.offset.acq, client.memory.iova + offset + 4096);
  await client.writeRegister(Register.offset.cc, Cc.mask.en);
  await client.vfio.regionWrite(PciRegion.BAR0, 0x1000, Uint8Array.of(1, 0, 0, 0));
  let found = await findings();
  while (found.length === 0) {
    found = await findings();
  }
  t.match(found, [/^admin commands were all zeros: .*share=on/]);
  await client.enable();
  t.strictSame(await findings(), [], 'until the next reset');
});
