/** Clients that keep their memory to themselves, and answer messages about it late, wrongly, twice, or never: only their own device suffers. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import t from 'tap';
import type { NvmeClient } from '../../src/client/nvme.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { STATUS_CODE, Status } from '../../src/spec/nvme.ts';
import { Csts, Register } from '../../src/spec/registers.ts';
import { VfioUserCommand } from '../../src/spec/vfio-user.ts';
import { encodeError, encodeReply, type Message } from '../../src/vfio-user/codec.ts';
import { neighbour } from '../helpers/integrity.ts';
import { deleteSq } from '../helpers/queues.ts';
import { Random } from '../helpers/random.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const PAGE = 4096;
const EFAULT = 14;
const { DMA_READ, DMA_WRITE } = VfioUserCommand;

async function start(t: Parameters<typeof TestTarget.start>[0]) {
  const lines: string[] = [];
  const log = pino({ level: 'info' }, { write: (line) => lines.push(line) });
  const target = await TestTarget.start(t, { log });
  const served = await target.serve(await target.malloc(4 * MIB));
  const connect = () =>
    target.connect(served, { shareMemory: false, memoryBytes: 4 * MIB, adminDepth: 8 });
  return { target, lines, connect };
}

/** Resolves when CSTS.CFS is 1. */
async function failed(client: NvmeClient): Promise<void> {
  while (!Csts.decode(await client.readRegister(Register.offset.csts)).cfs) {
    await sleep(10);
  }
}

async function works(client: NvmeClient): Promise<void> {
  client.vfio.onDma = undefined;
  await client.enable();
  assert.equal((await client.identifyController()).vid, 0x4e58);
}

/** A command of one block, to or from a page of the client's. */
async function rw(client: NvmeClient, opcode: number, prp1: number, prp2 = 0, blocks = 1) {
  const pair = await client.createQueuePair(1, 8);
  const fields = { opcode, nsid: 1, prp1, prp2, cdw12: blocks - 1 };
  const { status } = await pair.execute(fields);
  await client.deleteQueuePair(1);
  return status & STATUS_CODE;
}

const code = (status: number): number => status & STATUS_CODE;

t.test('never', async (t) => {
  const { target, lines, connect } = await start(t);
  const stop = await neighbour(target);
  const client = await connect();
  client.vfio.onDma = () => true;
  const lost = client.identifyController().catch(() => 'lost');
  // Nothing that the client asks waits for what it does not answer.
  for (let i = 0; i < 3; i++) {
    const before = performance.now();
    await client.enable();
    t.ok(performance.now() - before < 2000, 'a reset does not wait');
    client.identifyController().catch(() => {});
    await sleep(50);
  }
  await client.vfio.reset();
  await client.enable();
  client.identifyController().catch(() => {});
  await failed(client);
  t.ok(
    lines.some((line) => /does not share.*got ETIMEDOUT/.test(line)),
    'it fails, and the log says why',
  );
  client.close();
  t.equal(await lost, 'lost');
  await stop();
  await works(await connect());
});

t.test('late: after the controller was enabled again', async (t) => {
  const { connect } = await start(t);
  const client = await connect();
  for (let i = 0; i < 3; i++) {
    const late: Message[] = [];
    client.vfio.onDma = (message) => late.push(message) > 0;
    client.identifyController().catch(() => {});
    while (late.length === 0) {
      await sleep(1);
    }
    client.vfio.onDma = undefined;
    await client.enable();
    for (const message of late) {
      client.vfio.answerDma(message);
    }
    t.equal((await client.identifyController()).vid, 0x4e58, 'what is late changes nothing');
  }
});

t.test('wrongly', async (t) => {
  const { lines, connect } = await start(t);
  const client = await connect();
  const wrong: ((message: Message) => Uint8Array)[] = [
    ({ header }) => encodeReply(header, new Uint8Array(0)),
    ({ header, payload }) => encodeReply(header, payload.slice(0, 16)),
    ({ header, payload }) => encodeReply(header, new Uint8Array(payload.length + 64)),
    ({ header }) => encodeReply({ ...header, command: DMA_WRITE }, new Uint8Array(80)),
  ];
  for (const make of wrong) {
    client.vfio.onDma = (message) => {
      client.vfio.sendRaw(make(message));
      return true;
    };
    client.identifyController().catch(() => {});
    await failed(client);
    await works(client);
  }
  t.ok(lines.some((line) => /got EIO/.test(line)));
});

t.test('twice', async (t) => {
  const { connect } = await start(t);
  const client = await connect();
  client.vfio.onDma = (message) => {
    client.vfio.answerDma(message);
    return false;
  };
  const prp1 = client.memory.iova + client.memory.allocate(PAGE);
  t.equal(await rw(client, NvmOpcode.WRITE, prp1), 0);
  t.equal(await rw(client, NvmOpcode.READ, prp1), 0);
});

t.test('memory that a command cannot have is its own error', async (t) => {
  const { connect } = await start(t);
  const client = await connect();
  const offset = client.memory.allocate(4 * PAGE);
  const iova = client.memory.iova + offset;
  const nowhere = 2 ** 45;
  const { READ, WRITE } = NvmOpcode;
  for (const opcode of [READ, WRITE]) {
    const transferError = code(Status.DATA_TRANSFER_ERROR);
    const offsetError = code(Status.INVALID_PRP_OFFSET);
    t.equal(await rw(client, opcode, nowhere), transferError);
    t.equal(await rw(client, opcode, iova + 2), offsetError);
    t.equal(await rw(client, opcode, iova, iova + PAGE + 8, 16), offsetError);
    t.equal(await rw(client, opcode, iova, nowhere, 16), transferError);
    t.equal(await rw(client, opcode, iova, nowhere, 64), transferError, 'the list');
    t.equal(await rw(client, opcode, iova, iova + 4, 64), offsetError);
    // A list that leads to nothing: entries of zeros, where there is no memory.
    client.memory.bytes(offset + PAGE, PAGE).fill(0);
    t.equal(await rw(client, opcode, iova, iova + PAGE, 64), transferError);
    t.equal(await rw(client, opcode, 2 ** 60, 0), transferError);
    t.equal(await rw(client, opcode, iova), 0, 'the queue goes on');
  }
  // The client refuses the data, and nothing else.
  client.vfio.onDma = ({ header, view }) => {
    const isData = Number(view.getBigUint64(0, true)) === iova;
    if (isData) client.vfio.sendRaw(encodeError(header, EFAULT));
    return isData;
  };
  for (const opcode of [READ, WRITE]) {
    t.equal(await rw(client, opcode, iova), code(Status.DATA_TRANSFER_ERROR));
    t.equal(await rw(client, opcode, iova + PAGE), 0);
  }
});

t.test('memory that is taken away under messages', async (t) => {
  const { connect } = await start(t);
  const client = await connect();
  const pair = await client.createQueuePair(1, 8);
  const iova = client.memory.iova + 64 * MIB;
  await client.vfio.dmaMap({ iova, size: PAGE });
  let asked = 0;
  client.vfio.onDma = ({ view }) => {
    const isData = Number(view.getBigUint64(0, true)) === iova;
    asked += Number(isData);
    return isData;
  };
  const write = pair.execute({ opcode: NvmOpcode.WRITE, nsid: 1, prp1: iova });
  while (asked === 0) {
    await sleep(1);
  }
  const before = performance.now();
  await client.vfio.dmaUnmap(iova, PAGE);
  t.ok(performance.now() - before < 2000, 'DMA_UNMAP does not wait');
  t.equal(code((await write).status), code(Status.DATA_TRANSFER_ERROR));
});

t.test('a queue is deleted twice while the data of its command is on the way', async (t) => {
  const { connect } = await start(t);
  const client = await connect();
  const pair = await client.createQueuePair(1, 8);
  const iova = client.memory.iova + client.memory.allocate(PAGE);
  const held: Message[] = [];
  client.vfio.onDma = (message) => {
    const isData = Number(message.view.getBigUint64(0, true)) === iova;
    return isData && held.push(message) > 0;
  };
  const write = pair.execute({ opcode: NvmOpcode.WRITE, nsid: 1, prp1: iova });
  while (held.length === 0) {
    await sleep(1);
  }
  const first = deleteSq(client, 1);
  t.equal(code((await deleteSq(client, 1)).status), code(Status.INVALID_QUEUE_IDENTIFIER));
  client.vfio.answerDma(held[0]);
  t.equal(code((await write).status), code(Status.ABORTED_SQ_DELETION));
  t.equal((await first).status, 0);
});

t.test('anything at random, and a neighbour', async (t) => {
  const { target, connect } = await start(t);
  const stop = await neighbour(target);
  const random = new Random();
  t.comment(`seed ${random.seed}`);
  const client = await connect();
  const { vfio } = client;
  const answers: ((message: Message) => void)[] = [
    (message) => vfio.answerDma(message),
    (message) => vfio.answerDma(message),
    (message) => vfio.answerDma(message),
    (message) => void sleep(random.below(50)).then(() => vfio.answerDma(message)),
    ({ header }) => vfio.sendRaw(encodeError(header, 1 + random.below(100))),
    ({ header }) => vfio.sendRaw(encodeReply(header, new Uint8Array(random.below(200)))),
    (message) => {
      vfio.answerDma(message);
      vfio.answerDma(message);
    },
    () => {},
  ];
  for (let round = 0; round < 15; round++) {
    vfio.onDma = (message) => {
      if (message.header.command === DMA_READ && random.chance(0.5)) {
        return false;
      }
      random.pick(answers)(message);
      return true;
    };
    const work = async () => {
      await client.identifyController();
      const pair = await client.createQueuePair(1, 8);
      for (let i = 0; i < 8; i++) {
        const prp1 = client.memory.iova + random.below(256) * 512;
        await pair.execute({ opcode: random.pick([1, 2]), nsid: 1, prp1, cdw10: random.below(64) });
      }
    };
    await Promise.race([work().catch(() => {}), sleep(200)]);
    vfio.onDma = undefined;
    await client.enable();
    t.equal((await client.identifyController()).vid, 0x4e58);
  }
  await stop();
});
