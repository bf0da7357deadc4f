/** Encoding, and framing under every split. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import {
  encodeCommand,
  encodeError,
  encodeReply,
  type Frame,
  FrameDecoder,
  isReply,
  MAX_FRAME_FDS,
  wantsReply,
} from '../../src/vfio-user/codec.ts';
import { hex } from '../helpers/vfio.ts';

/**
 * Feeds bytes as a stream socket would: `fdsAt` says which descriptors travel with which byte, `sizes` how much each read gives. Stops
 * at a fatal frame.
 */
function feedAll(
  decoder: FrameDecoder,
  bytes: Uint8Array,
  fdsAt: ReadonlyMap<number, readonly number[]>,
  sizes: () => number,
): { frames: Frame[]; consumed: number } {
  const frames: Frame[] = [];
  let at = 0;
  while (at < bytes.length) {
    const space = decoder.space;
    if (space.length === 0) throw new Error('no space to read into');
    const count = Math.min(space.length, bytes.length - at, Math.max(1, sizes()));
    space.set(bytes.subarray(at, at + count));
    const fds: number[] = [];
    for (let i = at; i < at + count; i++) fds.push(...(fdsAt.get(i) ?? []));
    const frame = decoder.received(count, fds);
    if (frame !== undefined) frames.push(frame);
    at += count;
    if (frame?.kind === 'malformed' && frame.fatal) break;
  }
  return { frames, consumed: at };
}

const feed = (...args: Parameters<typeof feedAll>): Frame[] => feedAll(...args).frames;
const all = () => Number.MAX_SAFE_INTEGER;
const noFds = new Map<number, number[]>();

t.test('encodes byte by byte', async (t) => {
  const payload = hex('aabbccddee');
  t.same(encodeCommand(0x1234, 9, payload), hex('3412 0900 15000000 00000000 00000000 aabbccddee'));
  t.same(encodeCommand(1, 10, hex(''), 0x10), hex('0100 0a00 10000000 10000000 00000000'));
  const [frame] = feed(new FrameDecoder(64, () => {}), encodeCommand(7, 13, hex('')), noFds, all);
  t.same(
    encodeReply(frame.header, payload),
    hex('0700 0d00 15000000 01000000 00000000 aabbccddee'),
  );
  t.same(encodeError(frame.header, 22), hex('0700 0d00 10000000 21000000 16000000'));
});

t.test('reads the type and the reply flag', async (t) => {
  const header = (flags: number) => ({ messageId: 0, command: 1, size: 16, flags, error: 0 });
  t.equal(isReply(header(0)), false);
  t.equal(isReply(header(1)), true);
  t.equal(isReply(header(0x21)), true);
  t.equal(wantsReply(header(0)), true);
  t.equal(wantsReply(header(0x10)), false);
});

t.test('any split gives the same messages, each with its own descriptors', async () => {
  const message = fc.record({
    id: fc.nat(0xffff),
    command: fc.nat(0xffff),
    flags: fc.constantFrom(0, 1, 0x10, 0x21),
    payload: fc.uint8Array({ maxLength: 40 }),
    fds: fc.nat(4),
  });
  const property = fc.property(
    fc.array(message, { minLength: 1, maxLength: 12 }),
    fc.infiniteStream(fc.integer({ min: 1, max: 24 })),
    (messages, stream) => {
      const fdsAt = new Map<number, number[]>();
      let at = 0;
      let nextFd = 100;
      const parts = messages.map(({ id, command, flags, payload, fds }) => {
        fdsAt.set(
          at,
          Array.from({ length: fds }, () => nextFd++),
        );
        const bytes = encodeCommand(id, command, payload, flags);
        at += bytes.length;
        return bytes;
      });
      const dropped: number[] = [];
      const decoder = new FrameDecoder(40, (fds) => dropped.push(...fds));
      const frames = feed(decoder, Buffer.concat(parts), fdsAt, () => stream.next().value);
      nextFd = 100;
      const expected = messages.map(({ id, command, flags, payload, fds }) => ({
        id,
        command,
        flags,
        payload: [...payload],
        fds: Array.from({ length: fds }, () => nextFd++),
      }));
      const got = frames.map((frame) => {
        if (frame.kind !== 'message') throw new Error(frame.reason);
        const { messageId: id, command, flags, error, size } = frame.header;
        if (error !== 0 || size !== 16 + frame.payload.length) throw new Error('header');
        if (frame.view.byteLength !== frame.payload.length) throw new Error('view');
        return { id, command, flags, payload: [...frame.payload], fds: frame.fds };
      });
      assert.deepEqual(got, expected);
      assert.deepEqual(dropped, []);
    },
  );
  fc.assert(property, { numRuns: 200 });
});

t.test('garbage neither throws nor loses a descriptor', async () => {
  // Sizes that a random u32 would hardly ever hit.
  const header = fc
    .record({ size: fc.integer({ min: 0, max: 200 }), flags: fc.constantFrom(0, 1, 2, 15, 0x10) })
    .map(({ size, flags }) => {
      const bytes = Buffer.alloc(16);
      bytes.writeUInt32LE(size, 4);
      bytes.writeUInt32LE(flags, 8);
      return bytes;
    });
  const garbage = fc
    .array(fc.oneof(header, fc.uint8Array({ maxLength: 60 }), fc.uint8Array({ maxLength: 3 })), {
      maxLength: 12,
    })
    .map((parts) => Buffer.concat(parts));
  const property = fc.property(
    garbage,
    fc.array(fc.tuple(fc.nat(300), fc.integer({ min: 1, max: 100 })), { maxLength: 8 }),
    fc.infiniteStream(fc.integer({ min: 1, max: 50 })),
    (bytes, placed, stream) => {
      const fdsAt = new Map<number, number[]>();
      let nextFd = 0;
      for (const [at, count] of placed) {
        const fds = fdsAt.get(at) ?? [];
        for (let i = 0; i < count; i++) fds.push(nextFd++);
        fdsAt.set(at, fds);
      }
      const seen: number[] = [];
      const decoder = new FrameDecoder(64, (fds) => seen.push(...fds));
      const { frames, consumed } = feedAll(decoder, bytes, fdsAt, () => stream.next().value);
      for (const frame of frames) if (frame.kind === 'message') seen.push(...frame.fds);
      decoder.abandon();
      const sent = [...fdsAt].filter(([at]) => at < consumed).flatMap(([, fds]) => fds);
      assert.deepEqual(seen.sort(numerically), sent.sort(numerically), 'each exactly once');
    },
  );
  fc.assert(property, { numRuns: 300 });
});

const numerically = (a: number, b: number) => a - b;

t.test('a message that is too large is refused at its header, and its body skipped', async (t) => {
  const dropped: number[] = [];
  const decoder = new FrameDecoder(32, (fds) => dropped.push(...fds));
  const large = encodeCommand(5, 10, new Uint8Array(200_000).fill(0xff));
  const good = encodeCommand(6, 13, hex(''));
  const fdsAt = new Map([
    [0, [1, 2]],
    [150_000, [3]],
    [large.length, [4]],
  ]);
  const header = feed(decoder, large.subarray(0, 16), fdsAt, all);
  t.match(header, [{ kind: 'malformed', fatal: false, header: { messageId: 5, command: 10 } }]);
  t.same(dropped, [1, 2]);
  const later = new Map([...fdsAt].map(([at, fds]) => [at - 16, fds]));
  const rest = feed(decoder, Buffer.concat([large.subarray(16), good]), later, all);
  t.match(rest, [{ kind: 'message', header: { messageId: 6 }, fds: [4] }]);
  t.equal(rest.length, 1);
  t.same(dropped, [1, 2, 3]);
});

t.test('the largest message is taken, the next larger is not', async (t) => {
  const frames = (length: number) =>
    feed(new FrameDecoder(100, () => {}), encodeCommand(1, 1, new Uint8Array(length)), noFds, all);
  t.match(frames(100), [{ kind: 'message' }]);
  t.match(frames(101), [{ kind: 'malformed', fatal: false }]);
});

t.test('a header that makes no sense ends the stream', async (t) => {
  const cases: [string, Uint8Array][] = [
    ['size 15', hex('0100 0100 0f000000 00000000 00000000')],
    ['size 0', hex('0100 0100 00000000 00000000 00000000')],
    ['type 2', hex('0100 0100 10000000 02000000 00000000')],
    ['type 15', hex('0100 0100 ffffffff ffffffff 00000000')],
  ];
  for (const [name, bytes] of cases) {
    const dropped: number[] = [];
    const decoder = new FrameDecoder(64, (fds) => dropped.push(...fds));
    const frames = feed(decoder, bytes, new Map([[3, [9]]]), all);
    t.match(frames, [{ kind: 'malformed', fatal: true, header: { messageId: 1 } }], name);
    t.same(dropped, [9], name);
  }
});

t.test('descriptors of one message are bounded', async (t) => {
  const dropped: number[] = [];
  const decoder = new FrameDecoder(64, (fds) => dropped.push(...fds));
  const many = Array.from({ length: MAX_FRAME_FDS }, (_, i) => i);
  const bytes = encodeCommand(1, 8, new Uint8Array(20));
  const exact = feed(decoder, bytes, new Map([[0, many]]), all);
  t.match(exact, [{ kind: 'message', fds: many }]);
  const split = new Map([
    [0, many],
    [1, [1000]],
  ]);
  const excess = feed(decoder, bytes, split, () => 1);
  t.match(excess, [{ kind: 'malformed', fatal: false }]);
  t.same(dropped.sort(numerically), [...many, 1000]);
  t.match(feed(decoder, bytes, noFds, all), [{ kind: 'message', fds: [] }], 'and goes on');
});

t.test('abandon gives back what came with half a message', async (t) => {
  const dropped: number[] = [];
  const decoder = new FrameDecoder(64, (fds) => dropped.push(...fds));
  feed(decoder, encodeCommand(1, 8, new Uint8Array(20)).subarray(0, 20), new Map([[0, [5]]]), all);
  t.same(dropped, []);
  decoder.abandon();
  decoder.abandon();
  t.same(dropped, [5]);
});
