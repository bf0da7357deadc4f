/** Memory reached by messages, of clients that answer rightly, late, wrongly, twice, or never. */
import t from 'tap';
import { MAX_DMA_BYTES, MAX_DMA_MESSAGES } from '../../src/limits.ts';
import { MAX_DMA_MESSAGE_BYTES } from '../../src/spec/vfio-user.ts';
import { FrameDecoder, type Message } from '../../src/vfio-user/codec.ts';
import { type DmaLayout, DmaMessages } from '../../src/vfio-user/dma-messages.ts';
import { raw, words } from '../helpers/vfio.ts';

const [READ, WRITE] = [11, 12];
const REPLY = 1;
const ERROR_REPLY = 0x21;
const ENODEV = 19;

/** Bytes as the message that they are. */
function decode(bytes: Uint8Array): Message {
  const decoder = new FrameDecoder(2 ** 22, () => {});
  for (let at = 0; ; ) {
    const space = decoder.space;
    space.set(bytes.subarray(at, at + space.length));
    at += space.length;
    const frame = decoder.received(space.length, []);
    if (frame?.kind === 'message') return frame;
  }
}

/** A client's end: what was sent to it, and answers. */
function start(layout?: DmaLayout, maxBytes = 2 ** 20, patienceMs?: number) {
  const sent: Message[] = [];
  const messages = new DmaMessages(
    (bytes) => sent.push(decode(bytes)),
    maxBytes,
    layout,
    patienceMs,
  );
  const answer = (to: Message, payload: Uint8Array, command = to.header.command, flags = REPLY) =>
    messages.answer(decode(raw(to.header.messageId, command, payload, flags)));
  const refuse = ({ header }: Message, errno: number) => {
    const reply = raw(header.messageId, header.command, new Uint8Array(0), ERROR_REPLY);
    reply.writeUInt32LE(errno, 12);
    return messages.answer(decode(reply));
  };
  return { sent, messages, answer, refuse };
}

const specified = (address: number, count: number, data = new Uint8Array(0)) =>
  Buffer.concat([words([8, address], [8, count]), data]);
const short = (address: number, count: number, data = new Uint8Array(0)) =>
  Buffer.concat([words([8, address], [4, count]), data]);
const settle = () => new Promise((resolve) => setImmediate(resolve));

t.test('a client that follows the specification', async (t) => {
  const { sent, messages, answer } = start();
  const done = messages.write(0x1000, Buffer.from('hello'));
  await settle();
  t.equal(sent.length, 1);
  t.strictSame(Buffer.from(sent[0].payload), specified(0, 0), 'a write of nothing comes first');
  t.ok(answer(sent[0], specified(0, 0)));
  await settle();
  t.equal(sent[1].header.command, WRITE);
  t.strictSame(Buffer.from(sent[1].payload), specified(0x1000, 5, Buffer.from('hello')));
  answer(sent[1], specified(0x1000, 5));
  await done;
  const into = new Uint8Array(3);
  const read = messages.read(0x2000, into);
  t.strictSame(Buffer.from(sent[2].payload), specified(0x2000, 3));
  answer(sent[2], specified(0x2000, 3, Uint8Array.of(7, 8, 9)));
  await read;
  t.strictSame(into, Uint8Array.of(7, 8, 9));
});

t.test('QEMU 10, which has a count of 32 bits', async (t) => {
  const { sent, messages, answer } = start();
  const done = messages.write(0x1000, Buffer.from('hello'));
  await settle();
  answer(sent[0], new Uint8Array(0));
  await settle();
  t.strictSame(Buffer.from(sent[1].payload), short(0x1000, 5, Buffer.from('hello')));
  answer(sent[1], new Uint8Array(0));
  await done;
});

t.test('a read tells the layout as well', async (t) => {
  const { sent, messages, answer } = start();
  const into = new Uint8Array(8);
  const read = messages.read(0x3000, into);
  t.strictSame(Buffer.from(sent[0].payload), specified(0x3000, 8), 'which both take');
  answer(sent[0], short(0x3000, 8, Buffer.alloc(8, 1)));
  await read;
  t.strictSame(into, new Uint8Array(8).fill(1));
  const write = messages.write(0x3000, Uint8Array.of(1));
  await settle();
  t.strictSame(Buffer.from(sent[1].payload), short(0x3000, 1, Uint8Array.of(1)), 'no probe');
  answer(sent[1], new Uint8Array(0));
  await write;
});

t.test('pieces are as large as the client takes, and bounded in all', async (t) => {
  const small = start('specified', 1024);
  const done = small.messages.write(0, new Uint8Array(2500));
  await settle();
  t.strictSame(
    small.sent.map(({ payload }) => payload.length - 16),
    [1024, 1024, 452],
  );
  for (const message of small.sent) small.answer(message, message.payload.subarray(0, 16));
  await done;
  const large = start('specified');
  void large.messages.read(0, new Uint8Array(3 * MAX_DMA_BYTES)).catch(() => {});
  t.equal(large.sent.length, 1, 'the others wait: no two replies fit the socket of a client');
  const first = large.sent[0];
  large.answer(
    first,
    Buffer.concat([first.payload.subarray(0, 16), new Uint8Array(MAX_DMA_MESSAGE_BYTES)]),
  );
  t.equal(large.sent.length, 2);
  const writes = start('specified');
  void writes.messages.write(0, new Uint8Array(3 * MAX_DMA_BYTES)).catch(() => {});
  await settle();
  t.equal(writes.sent.length, MAX_DMA_BYTES / MAX_DMA_MESSAGE_BYTES, 'writes have more room');
  writes.messages.close();
  large.messages.close();
});

t.test('what is wrong with a reply', async (t) => {
  const { sent, messages, answer, refuse } = start('specified');
  const cases: [string, (message: Message) => boolean, string][] = [
    ['the client refuses', (m) => refuse(m, ENODEV), 'ENODEV'],
    ['an errno that does not exist', (m) => refuse(m, 40_000), 'EIO'],
    ['too short', (m) => answer(m, specified(0x10, 4, new Uint8Array(3))), 'EIO'],
    ['too long', (m) => answer(m, specified(0x10, 4, new Uint8Array(5))), 'EIO'],
    ['of another address', (m) => answer(m, specified(0x11, 4, new Uint8Array(4))), 'EIO'],
    ['of another count', (m) => answer(m, specified(0x10, 5, new Uint8Array(4))), 'EIO'],
    ['of another command', (m) => answer(m, specified(0x10, 4), WRITE), 'EIO'],
    ['empty', (m) => answer(m, new Uint8Array(0)), 'EIO'],
  ];
  for (const [what, reply, code] of cases) {
    const into = new Uint8Array(4).fill(9);
    const read = messages.read(0x10, into);
    const message = sent.at(-1)!;
    t.ok(reply(message));
    await t.rejects(read, { code }, what);
    t.strictSame(into, new Uint8Array(4).fill(9), 'nothing was filled in');
    t.notOk(reply(message), 'twice: it answers nothing');
  }
});

t.test('taken away: at once, and the late reply is dropped', async (t) => {
  const { sent, messages, answer } = start('specified');
  const into = new Uint8Array(4);
  const gone = messages.read(0x1000, into);
  const kept = messages.read(0x5000, new Uint8Array(4));
  messages.abandon(0x1000, 0x2000);
  await t.rejects(gone, { code: 'ECANCELED' });
  t.ok(answer(sent[0], specified(0x1000, 4, Buffer.alloc(4, 5))), 'known, and dropped');
  t.strictSame(into, new Uint8Array(4));
  t.notOk(answer(sent[0], specified(0x1000, 4, Buffer.alloc(4, 5))), 'once');
  answer(sent[1], specified(0x5000, 4, Buffer.alloc(4)));
  await kept;
  messages.close();
  await t.rejects(messages.read(0, into), { code: 'ECANCELED' });
  const probing = start();
  const write = t.rejects(probing.messages.write(0x1000, into), { code: 'ECANCELED' });
  await settle();
  probing.messages.close();
  await write;
});

t.test('a client that never answers is asked no more', async (t) => {
  const { sent, messages } = start('specified', undefined, 50);
  const results: Promise<unknown>[] = [];
  for (let i = 0; i < 2 * MAX_DMA_MESSAGES; i++) {
    results.push(messages.read(i, new Uint8Array(1)).catch((error) => error.code));
  }
  t.equal(await messages.read(0, new Uint8Array(1)).catch((error) => error.code), 'ENOBUFS');
  const asked = sent.length;
  t.ok(asked > MAX_DMA_MESSAGES / 2 && asked <= MAX_DMA_MESSAGES, 'a bounded number is sent');
  const alive = setInterval(() => {}, 10);
  t.teardown(() => clearInterval(alive));
  t.strictSame(new Set(await Promise.all(results)), new Set(['ETIMEDOUT', 'ENOBUFS']));
  t.equal(sent.length, asked, 'ids that may still be answered are not used again');
  t.equal(await messages.read(0, new Uint8Array(1)).catch((error) => error.code), 'ETIMEDOUT');
  t.equal(new Set(sent.map(({ header }) => header.messageId)).size, asked);
  t.ok(sent.every(({ header }) => header.command === READ));
});
