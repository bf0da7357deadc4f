/**
 * NBD servers that answer whatever they like: unknown and double answers, wrong lengths and places, chunks of no known kind, garbage, at random. Nothing crashes, no other
 * disk feels it, and what completes with success has come whole.
 */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import {
  InfoBlockSize,
  InfoExport,
  NBD_MAGIC,
  NbdChunk,
  NbdGreeting,
  NbdOptionReply,
  NbdRequest,
  NbdSimpleReply,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
} from '../../src/spec/nbd.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { code } from '../helpers/admin.ts';
import { Random } from '../helpers/random.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const { READ, WRITE, FLUSH } = NvmOpcode;
const DISK = 4 * MIB;
const FLAGS = 0x1 | 0x4 | 0x8 | 0x20 | 0x40 | 0x100;

interface Asked {
  readonly type: number;
  readonly cookie: Buffer;
  readonly offset: number;
  readonly length: number;
}

/** What is sent for a request. */
type Answerer = (asked: Asked, send: (...parts: Uint8Array[]) => void) => void;

/** A server that is as it should be until the handshake is over. */
class Hostile {
  readonly uri: string;
  readonly #sockets = new Set<Socket>();
  readonly #structured: boolean;
  answer: Answerer;
  /** Of the data of a request, if it says so. Bytes. */
  maximum: number | undefined;
  connections = 0;

  private constructor(uri: string, structured: boolean, answer: Answerer) {
    this.uri = uri;
    this.#structured = structured;
    this.answer = answer;
  }

  static async start(t: Test, structured: boolean, answer: Answerer): Promise<Hostile> {
    const folder = mkdtempSync(join(tmpdir(), 'db-nbd-'));
    const path = join(folder, 'sock');
    const hostile = new Hostile(`nbd+unix:///?socket=${path}`, structured, answer);
    const sockets = hostile.#sockets;
    const server = createServer((socket) => {
      sockets.add(socket);
      socket.on('close', () => sockets.delete(socket));
      socket.on('error', () => {});
      hostile.#talk(socket);
    });
    server.listen(path);
    await once(server, 'listening');
    t.teardown(() => {
      for (const socket of sockets) {
        socket.destroy();
      }
      server.close();
      rmSync(folder, { recursive: true });
    });
    return hostile;
  }

  /** Ends all connections. */
  hangUp(): void {
    for (const socket of this.#sockets) {
      socket.destroy();
    }
  }

  #talk(socket: Socket): void {
    const [magicHigh, magicLow] = NBD_MAGIC;
    const [optionHigh, optionLow] = OPTION_MAGIC;
    socket.write(NbdGreeting.encode({ magicHigh, magicLow, optionHigh, optionLow, flags: 3 }));
    let received: Buffer = Buffer.alloc(0);
    let skips = 4;
    let isOpen = false;
    socket.on('data', (data) => {
      received = Buffer.concat([received, data]);
      for (;;) {
        const taken = isOpen
          ? this.#request(received, socket)
          : skips > 0
            ? Math.min(skips, received.length)
            : this.#option(received, socket);
        if (taken === 0) {
          break;
        }
        if (skips > 0) {
          skips -= taken;
        } else if (!isOpen && received.readUInt32BE(8) === 7) {
          isOpen = true;
          this.connections += 1;
        }
        received = received.subarray(taken);
      }
    });
  }

  #option(received: Buffer, socket: Socket): number {
    if (received.length < 16 || received.length < 16 + received.readUInt32BE(12)) {
      return 0;
    }
    const option = received.readUInt32BE(8);
    const [magicHigh, magicLow] = OPTION_REPLY_MAGIC;
    const reply = (type: number, data: Uint8Array = Buffer.alloc(0)) =>
      socket.write(
        Buffer.concat([
          NbdOptionReply.encode({ magicHigh, magicLow, option, type, length: data.length }),
          data,
        ]),
      );
    if (option === 7) {
      reply(3, InfoExport.encode({ type: 0, size: DISK, flags: FLAGS }));
      if (this.maximum !== undefined) {
        const { maximum } = this;
        reply(3, InfoBlockSize.encode({ type: 3, minimum: 1, preferred: 4096, maximum }));
      }
      reply(1);
    } else {
      reply(this.#structured ? 1 : 0x8000_0001);
    }
    return 16 + received.readUInt32BE(12);
  }

  #request(received: Buffer, socket: Socket): number {
    if (received.length < NbdRequest.size) {
      return 0;
    }
    const request = NbdRequest.read(new DataView(received.buffer, received.byteOffset));
    const taken = NbdRequest.size + (request.type === 1 ? request.length : 0);
    if (received.length < taken) {
      return 0;
    }
    const { type, offset, length } = request;
    const cookie = Buffer.from(received.subarray(8, 16));
    this.answer({ type, cookie, offset, length }, (...parts) => {
      if (!socket.destroyed) {
        socket.write(Buffer.concat(parts));
      }
    });
    return taken;
  }
}

function simple(cookie: Buffer, error = 0): Buffer {
  const head = Buffer.from(NbdSimpleReply.encode({ magic: 0x6744_6698, error }));
  cookie.copy(head, 8);
  return head;
}

function chunk(
  cookie: Buffer,
  type: number,
  flags: number,
  data: Uint8Array,
  length = data.length,
) {
  const head = Buffer.from(NbdChunk.encode({ magic: 0x668e_33ef, flags, type, length }));
  cookie.copy(head, 8);
  return Buffer.concat([head, data]);
}

function at(offset: number, data: Uint8Array): Buffer {
  const head = Buffer.alloc(8);
  head.writeBigUInt64BE(BigInt(offset));
  return Buffer.concat([head, data]);
}

function hole(offset: number, length: number): Buffer {
  const data = Buffer.alloc(4);
  data.writeUInt32BE(length);
  return at(offset, data);
}

/** As a good server would. */
const honest =
  (structured: boolean): Answerer =>
  ({ type, cookie, offset, length }, send) => {
    const data = Buffer.alloc(type === 0 ? length : 0, 7);
    if (structured && type === 0) {
      send(chunk(cookie, 1, 1, at(offset, data)));
    } else if (type !== 2) {
      send(simple(cookie), data);
    }
  };

async function start(
  t: Test,
  structured: boolean,
  timeout = 1,
  { on_reconnect = 'trust', maximum }: { on_reconnect?: string; maximum?: number } = {},
) {
  const hostile = await Hostile.start(t, structured, honest(structured));
  hostile.maximum = maximum;
  const target = await TestTarget.start(t);
  const params = { name: 'n', uri: hostile.uri, timeout, on_reconnect };
  await target.target.createBdev('nbd', params);
  const client = await target.connect(await target.serve('n', await target.malloc(MIB)));
  const pair = await client.createQueuePair(1, 64);
  const offset = client.memory.allocate(32 * 4096);
  const memory = client.memory.bytes(offset, 32 * 4096);
  const run = async (opcode: number, place = 0, nsid = 1) => {
    const prp1 = client.memory.iova + offset + place * 4096;
    return code(await pair.execute({ opcode, nsid, prp1, cdw10: place * 8, cdw12: 7 }));
  };
  return { hostile, target, run, memory };
}

const garbage = (length: number) => Buffer.alloc(length, 0x5a);
/** Each of them is something that a server may not say. */
const LIES: Record<string, readonly [structured: boolean, Answerer]> = {
  'no answer but garbage': [false, (_, send) => send(garbage(64))],
  'an answer to nothing': [false, (_, send) => send(simple(Buffer.alloc(8, 0xff)))],
  'an answer to a slot that is beyond all': [false, ({ cookie }, send) => send(simple(Buffer.concat([cookie.subarray(0, 4), Buffer.from([0, 0, 0x20, 0])])))], // biome-ignore format: a case
  'an answer with the number of another time': [false, ({ cookie }, send) => send(simple(Buffer.concat([Buffer.from([9, 9, 9, 9]), cookie.subarray(4)])))], // biome-ignore format: a case
  'two answers': [false, ({ cookie, length }, send) => send(simple(cookie), garbage(length), simple(cookie))], // biome-ignore format: a case
  'chunks that were not agreed on': [false, ({ cookie, offset, length }, send) => send(chunk(cookie, 1, 1, at(offset, garbage(length))))], // biome-ignore format: a case
  'a simple answer where chunks were agreed on': [true, ({ cookie, length }, send) => send(simple(cookie), garbage(length))], // biome-ignore format: a case
  'data before its place': [true, ({ cookie, offset, length }, send) => send(chunk(cookie, 1, 1, at(offset - 1, garbage(length))))], // biome-ignore format: a case
  'data beyond its place': [true, ({ cookie, offset, length }, send) => send(chunk(cookie, 1, 1, at(offset + 512, garbage(length))))], // biome-ignore format: a case
  'data at 2^63': [true, ({ cookie, length }, send) => send(chunk(cookie, 1, 1, at(2 ** 63, garbage(length))))], // biome-ignore format: a case
  'more data than was asked for': [true, ({ cookie, offset, length }, send) => send(chunk(cookie, 1, 1, at(offset, garbage(length + 1))))], // biome-ignore format: a case
  'more data in two pieces': [true, ({ cookie, offset, length }, send) => send(chunk(cookie, 1, 0, at(offset, garbage(length))), chunk(cookie, 1, 1, at(offset, garbage(1))))], // biome-ignore format: a case
  'half of the data twice': [true, ({ cookie, offset, length }, send) => send(chunk(cookie, 1, 0, at(offset, garbage(length / 2))), chunk(cookie, 1, 1, at(offset, garbage(length / 2))))], // biome-ignore format: a case
  'a hole where there was data': [true, ({ cookie, offset, length }, send) => send(chunk(cookie, 1, 0, at(offset + 512, garbage(length / 2))), chunk(cookie, 2, 1, hole(offset, length / 2)))], // biome-ignore format: a case
  'no data at all in its chunk': [true, ({ cookie, offset }, send) => send(chunk(cookie, 1, 1, at(offset, garbage(0))))], // biome-ignore format: a case
  'data of 4 GiB': [true, ({ cookie, offset }, send) => send(chunk(cookie, 1, 1, at(offset, garbage(8)), 0xffff_ffff))], // biome-ignore format: a case
  'a hole of 4 GiB': [true, ({ cookie, offset }, send) => send(chunk(cookie, 2, 1, hole(offset, 0xffff_ffff)))], // biome-ignore format: a case
  'a hole of another length': [true, ({ cookie, offset }, send) => send(chunk(cookie, 2, 1, at(offset, garbage(5))))], // biome-ignore format: a case
  'a chunk of no kind': [true, ({ cookie }, send) => send(chunk(cookie, 77, 1, garbage(5)))],
  'nothing, with data': [true, ({ cookie }, send) => send(chunk(cookie, 0, 1, garbage(5)))],
  'nothing, and more to come': [true, ({ cookie }, send) => send(chunk(cookie, 0, 0, garbage(0)))],
  'an error of 1 GiB': [true, ({ cookie }, send) => send(chunk(cookie, 0x8001, 1, garbage(8), 2 ** 30))], // biome-ignore format: a case
  'an error of no length': [true, ({ cookie }, send) => send(chunk(cookie, 0x8001, 1, garbage(2)))],
};

t.test('what a server may not say ends its connection', async (t) => {
  const target = await TestTarget.start(t);
  const lies = await Promise.all(
    Object.entries(LIES).map(async ([name, [structured, lie]]) => {
      const hostile = await Hostile.start(t, structured, honest(structured));
      await target.target.createBdev('nbd', { name, uri: hostile.uri, timeout: 0 });
      return { name, structured, lie, hostile };
    }),
  );
  const other = await target.malloc(MIB);
  const client = await target.connect(await target.serve(other, ...lies.map(({ name }) => name)));
  const pair = await client.createQueuePair(1, 64);
  const read = async (nsid: number, offset: number) => {
    const prp1 = client.memory.iova + offset;
    return code(await pair.execute({ opcode: READ, nsid, prp1, cdw10: 8 * nsid, cdw12: 7 }));
  };
  await Promise.all(
    lies.map(async ({ name, structured, lie, hostile }, i) => {
      const offset = client.memory.allocate(3 * 4096);
      const memory = client.memory.bytes(offset, 3 * 4096).fill(0);
      const nsid = i + 2;
      t.equal(await read(nsid, offset + 4096), '0/00');
      let told = 0;
      hostile.answer = (asked, send) => {
        told += 1;
        (told === 1 ? lie : honest(structured))(asked, send);
      };
      t.equal(await read(nsid, offset + 4096), '0/00', name);
      t.equal(await read(nsid, offset + 4096), '0/00', 'what comes after it');
      t.ok(memory.subarray(4096, 8192).every((byte) => byte === 7));
      t.ok([...memory.subarray(0, 4096), ...memory.subarray(8192)].every((byte) => byte === 0));
      t.equal(hostile.connections, 2, 'another connection');
    }),
  );
  t.equal(await read(1, client.memory.allocate(4096)), '0/00', 'the other disk');
});

t.test('answers that are odd, and allowed', async (t) => {
  const { hostile, run, memory, target } = await start(t, true, 5);
  const before = hostile.connections;
  hostile.answer = ({ cookie, offset, length }, send) =>
    send(
      chunk(cookie, 1, 0, at(offset + 512, garbage(length - 512))),
      chunk(cookie, 2, 0, hole(offset, 512)),
      chunk(cookie, 0, 1, garbage(0)),
    );
  memory.fill(0xff);
  t.equal(await run(READ), '0/00');
  t.ok(memory.subarray(0, 512).every((byte) => byte === 0));
  t.ok(memory.subarray(512, 4096).every((byte) => byte === 0x5a));
  hostile.answer = ({ cookie, offset }, send) =>
    send(
      ...[7, 1, 5, 3, 4, 0, 2, 6].map((i) =>
        chunk(cookie, 1, 0, at(offset + i * 512, Buffer.alloc(512, i))),
      ),
      chunk(cookie, 0, 1, garbage(0)),
    );
  t.equal(await run(READ), '0/00');
  t.ok(memory.subarray(0, 4096).every((byte, i) => byte === i >> 9));
  hostile.answer = ({ cookie, offset }, send) =>
    send(chunk(cookie, 1, 0, at(offset, garbage(512))), chunk(cookie, 0, 1, garbage(0)));
  t.equal(await run(READ), '2/81', 'not all of it came');
  const error = Buffer.alloc(6 + 5, 0x21);
  error.writeUInt32BE(5);
  error.writeUInt16BE(5, 4);
  hostile.answer = ({ cookie }, send) => send(chunk(cookie, 0x8001, 1, error));
  t.equal(await run(READ), '2/81');
  t.equal(await run(WRITE), '2/80');
  for (const [errno, status] of [
    [28, '0/81'],
    [1, '0/20'],
    [12, '0/06'],
    [0xffff_ffff, '2/80'],
  ] as const) {
    hostile.answer = ({ cookie }, send) => send(simple(cookie, errno));
    const got = await run(WRITE);
    t.equal(got, status, `errno ${errno}`);
  }
  t.equal(hostile.connections, before);
  // It is about to end: another connection may be to one that stays.
  hostile.answer = ({ cookie }, send) => {
    hostile.answer = honest(true);
    send(simple(cookie, 108));
  };
  t.equal(await run(WRITE), '0/00');
  t.equal(hostile.connections, before + 1);
  hostile.answer = ({ cookie }, send) => send(simple(cookie, 5));
  t.equal(await run(FLUSH), '2/80');
  hostile.answer = honest(true);
  t.equal(await run(FLUSH), '2/80', 'a Flush that failed is not mended by the next');
  await target.target.reopenNbd('n');
  t.equal(await run(FLUSH), '0/00');
});

t.test('a server that is about to end has answered others before', async (t) => {
  const { hostile, run } = await start(t, false, 0);
  const asked: Asked[] = [];
  hostile.answer = (request, send) => {
    asked.push(request);
    if (asked.length === 2) {
      send(simple(asked[0].cookie, 108), simple(asked[1].cookie));
      hostile.answer = (again, sendAgain) => {
        asked.push(again);
        honest(false)(again, sendAgain);
      };
    }
  };
  t.same(await Promise.all([run(WRITE, 1), run(WRITE, 2)]), ['0/00', '0/00']);
  t.equal(asked.length, 3, 'only one of them is asked for again');
  t.equal(asked[2].offset, asked[0].offset);
  t.equal(hostile.connections, 2);
});

t.test('a server that is lost between two parts of a write', async (t) => {
  const options = { on_reconnect: 'fail-flush', maximum: 2048 };
  const { hostile, run } = await start(t, false, 0, options);
  let parts = 0;
  hostile.answer = (asked, send) => {
    parts += 1;
    if (parts === 1) {
      honest(false)(asked, send);
    } else {
      hostile.answer = honest(false);
      hostile.hangUp();
    }
  };
  t.equal(await run(WRITE), '0/00');
  t.equal(parts, 2);
  t.equal(await run(FLUSH), '2/80', 'the first part may be forgotten');
});

t.test('connections made anew for an operator make nothing durable', async (t) => {
  const { hostile, run, target } = await start(t, false, 0, { on_reconnect: 'fail-flush' });
  const told = () =>
    target.target.events.since().filter(({ type }) => type === 'write-back-failed').length;
  t.equal(await run(WRITE), '0/00');
  await target.target.reopenNbd('n');
  t.equal(told(), 1, 'the server may have been another since');
  t.equal(await run(READ), '0/00', 'over a new connection');
  hostile.hangUp();
  t.equal(await run(FLUSH), '2/80', 'what was written was never flushed');
  await target.target.reopenNbd('n');
  t.equal(await run(FLUSH), '0/00');
  const before = told();
  await target.target.reopenNbd('n');
  hostile.hangUp();
  t.equal(await run(FLUSH), '0/00', 'all was flushed');
  t.equal(told(), before);
});

t.test('anything, at random', async (t) => {
  const random = new Random();
  t.comment(`SEED=${random.seed}`);
  const { hostile, run } = await start(t, true);
  const bytes = (length: number) => Buffer.from(Array.from({ length }, () => random.below(256)));
  hostile.answer = (asked, send) => {
    const { cookie, offset, length } = asked;
    switch (random.below(8)) {
      case 0:
        return send(bytes(1 + random.below(100)));
      case 1:
        return send(chunk(cookie, random.below(4), random.below(2), bytes(random.below(40))));
      case 2:
        return send(chunk(cookie, 0x8000 + random.below(4), 1, bytes(6 + random.below(20))));
      case 3:
        return send(simple(cookie, random.below(200)));
      case 4:
        return send(chunk(cookie, 1, random.below(2), at(offset + random.below(3) * 512, bytes(1 + random.below(length + 2))))); // biome-ignore format: one call
      case 5:
        return honest(true)(asked, (...parts) => send(Buffer.concat(parts).subarray(0, random.below(60)))); // biome-ignore format: one call
      default:
        return honest(true)(asked, send);
    }
  };
  // A request whose answer never comes is waited for as long as its connection lasts.
  const hangingUp = setInterval(() => hostile.hangUp(), 1200);
  t.teardown(() => clearInterval(hangingUp));
  const counts = new Map<string, number>();
  const workers = Array.from({ length: 16 }, async (_, worker) => {
    for (let i = 0; i < 12; i++) {
      const status = await run(random.pick([READ, WRITE, READ, WRITE, FLUSH]), worker);
      counts.set(status, (counts.get(status) ?? 0) + 1);
      if (i % 8 === 0) {
        t.equal(await run(WRITE, worker, 2), '0/00', 'the other disk');
      }
    }
  });
  await Promise.all(workers);
  t.comment(JSON.stringify([...counts]));
  clearInterval(hangingUp);
  hostile.answer = honest(true);
  hostile.hangUp();
  // Connections that were lost at once are made again later and later: the next one may take longer than a command waits.
  while ((await run(READ)) !== '0/00') {
    // It comes.
  }
  for (let i = 0; i < 20; i++) {
    t.equal(await run(READ, i), '0/00', 'it is honest again');
  }
});
