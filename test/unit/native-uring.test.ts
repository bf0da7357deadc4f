/** The addon's io_uring: entries written through the mapped rings, waits with and without a bound, registered files and buffers. */
import { closeSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import t from 'tap';
import { native, type UringRegion } from '../../src/native/index.ts';

const OP = { NOP: 0, READ_FIXED: 4, TIMEOUT: 11, READ: 22, WRITE: 23 } as const;
const SQE_FIXED_FILE = 1;
const SETUP_CLAMP = 1 << 4;
const SETUP_NO_MMAP = 1 << 14;
const SETUP_NO_SQARRAY = 1 << 16;
const ENTER_GETEVENTS = 1;
const ETIME = 62;

/** The least that drives a ring: one entry at a time. */
class Ring {
  readonly region: UringRegion;
  readonly #rings: Int32Array;
  readonly #sqes: DataView;
  constructor(region: UringRegion) {
    this.region = region;
    this.#rings = new Int32Array(region.rings, 0, Math.floor(region.rings.byteLength / 4));
    this.#sqes = new DataView(region.sqes);
  }
  push(entry: {
    op: number;
    flags?: number;
    fd?: number;
    offset?: number;
    address?: number;
    length?: number;
    index?: number;
    user: number;
  }) {
    const r = this.region;
    const tail = this.#rings[r.sqTail / 4];
    const slot = tail & this.#rings[r.sqMask / 4];
    const at = slot * 64;
    for (let i = 0; i < 64; i += 8) this.#sqes.setBigUint64(at + i, 0n);
    this.#sqes.setUint8(at, entry.op);
    this.#sqes.setUint8(at + 1, entry.flags ?? 0);
    this.#sqes.setInt32(at + 4, entry.fd ?? -1, true);
    this.#sqes.setBigUint64(at + 8, BigInt(entry.offset ?? 0), true);
    this.#sqes.setBigUint64(at + 16, BigInt(entry.address ?? 0), true);
    this.#sqes.setUint32(at + 24, entry.length ?? 0, true);
    this.#sqes.setBigUint64(at + 32, BigInt(entry.user), true);
    this.#sqes.setUint16(at + 40, entry.index ?? 0, true);
    if (r.sqArray !== 0) this.#rings[r.sqArray / 4 + slot] = slot;
    Atomics.store(this.#rings, r.sqTail / 4, tail + 1);
  }
  reap(): { user: number; result: number } | undefined {
    const r = this.region;
    const head = this.#rings[r.cqHead / 4];
    if (head === Atomics.load(this.#rings, r.cqTail / 4)) return undefined;
    const at = (r.cqes + (head & this.#rings[r.cqMask / 4]) * 16) / 4;
    const completion = { user: this.#rings[at], result: this.#rings[at + 2] };
    Atomics.store(this.#rings, r.cqHead / 4, head + 1);
    return completion;
  }
  /** Submits what was pushed and waits for as many completions. */
  run(count = 1): { user: number; result: number }[] {
    const submitted = native.uringEnter(this.region.fd, count, count, ENTER_GETEVENTS, 10_000_000);
    if (submitted !== count) throw new Error(`io_uring_enter: ${submitted}`);
    return Array.from({ length: count }, () => this.reap()!);
  }
  close() {
    closeSync(this.region.fd);
  }
}

const bytes = (buffer: SharedArrayBuffer) => new Uint8Array(buffer);

t.test('the rings are mapped as the kernel describes them', async (t) => {
  const region = native.uringSetup(6, 0, 0);
  t.equal(region.sqEntries, 8, 'rounded up to a power of two');
  t.equal(region.cqEntries, 16);
  t.equal(region.sqes.byteLength, 8 * 64);
  t.ok(region.rings.byteLength >= region.cqes + 16 * 16);
  t.ok(region.rings.byteLength >= region.sqArray + 8 * 4);
  const words = new Uint32Array(region.rings, 0, Math.floor(region.rings.byteLength / 4));
  t.equal(words[region.sqMask / 4], 7);
  t.equal(words[region.cqMask / 4], 15);
  t.same(
    [region.sqHead, region.sqTail, region.cqHead, region.cqTail].map((at) => words[at / 4]),
    [0, 0, 0, 0],
  );
  t.same(
    [region.sqFlags, region.sqDropped, region.cqOverflow].map((at) => words[at / 4]),
    [0, 0, 0],
  );
  t.match(
    readFileSync(`/proc/self/fdinfo/${region.fd}`, 'utf8'),
    /^flags:\s+02\d+/m,
    'close-on-exec',
  );
  closeSync(region.fd);
  t.equal(words[region.cqMask / 4], 15, 'the mapping outlives the descriptor');

  const sized = native.uringSetup(8, 100, 0);
  t.equal(sized.cqEntries, 128, 'IORING_SETUP_CQSIZE');
  closeSync(sized.fd);
});

t.test('NOPs go round the ring in order', async (t) => {
  const ring = new Ring(native.uringSetup(4, 0, 0));
  for (let round = 0; round < 10; round++) {
    for (let i = 0; i < 4; i++) ring.push({ op: OP.NOP, user: round * 4 + i });
    t.same(
      ring.run(4),
      [0, 1, 2, 3].map((i) => ({ user: round * 4 + i, result: 0 })),
    );
  }
  t.equal(ring.reap(), undefined);
  ring.close();
});

t.test('a ring without the index array', async (t) => {
  let region: UringRegion;
  try {
    region = native.uringSetup(4, 0, SETUP_NO_SQARRAY);
  } catch (error) {
    t.match(error, { code: 'EINVAL' });
    t.pass('this kernel is older than 6.6', { skip: true });
    return;
  }
  t.equal(region.sqArray, 0);
  t.ok(region.rings.byteLength >= region.cqes + region.cqEntries * 16);
  const ring = new Ring(region);
  ring.push({ op: OP.NOP, user: 1 });
  ring.push({ op: OP.NOP, user: 2 });
  t.same(ring.run(2), [
    { user: 1, result: 0 },
    { user: 2, result: 0 },
  ]);
  ring.close();
});

t.test('READ and WRITE move bytes between a file and mapped memory', async (t) => {
  const path = join(tmpdir(), `doorbell-uring-${process.pid}`);
  const fd = openSync(path, 'w+');
  rmSync(path);
  const ring = new Ring(native.uringSetup(8, 0, 0));
  const memory = bytes(native.mapAnonymous(8192));
  const address = native.addressOf(memory);
  for (let i = 0; i < 4096; i++) memory[i] = i * 7;
  ring.push({ op: OP.WRITE, fd, offset: 4096, address, length: 4096, user: 1 });
  t.same(ring.run(), [{ user: 1, result: 4096 }]);
  ring.push({ op: OP.READ, fd, offset: 4096, address: address + 4096, length: 4096, user: 2 });
  t.same(ring.run(), [{ user: 2, result: 4096 }]);
  t.same(memory.subarray(4096), memory.subarray(0, 4096));
  ring.push({ op: OP.READ, fd, offset: 0, address: 4096, length: 4096, user: 3 });
  t.same(ring.run(), [{ user: 3, result: -14 }], 'a bad address is EFAULT');
  ring.push({ op: OP.READ, fd: -1, offset: 0, address, length: 1, user: 4 });
  t.same(ring.run(), [{ user: 4, result: -9 }]);
  ring.close();
  closeSync(fd);
});

t.test('registered files and buffers', async (t) => {
  const ring = new Ring(native.uringSetup(8, 0, 0));
  const fd = native.memfdCreate('file', 8192);
  bytes(native.mapFile(fd, 0, 8192, true)).fill(0x5a, 4096);
  const memory = bytes(native.mapAnonymous(8192));
  const address = native.addressOf(memory);
  native.uringRegisterFiles(ring.region.fd, Int32Array.of(-1, fd));
  native.uringRegisterFiles(ring.region.fd, Int32Array.of(-1, -1, fd));
  native.uringRegisterBuffers(ring.region.fd, Float64Array.of(address, 4096));
  native.uringRegisterBuffers(ring.region.fd, Float64Array.of(address, 4096, address + 4096, 4096));
  ring.push({
    op: OP.READ_FIXED,
    flags: SQE_FIXED_FILE,
    fd: 2,
    offset: 4096,
    address: address + 4096,
    length: 100,
    index: 1,
    user: 1,
  });
  t.same(ring.run(), [{ user: 1, result: 100 }]);
  t.equal(memory[4096 + 99], 0x5a);
  ring.push({
    op: OP.READ_FIXED,
    flags: SQE_FIXED_FILE,
    fd: 2,
    offset: 0,
    address,
    length: 100,
    index: 1,
    user: 2,
  });
  t.same(ring.run(), [{ user: 2, result: -14 }], 'outside of the buffer');
  ring.push({ op: OP.READ, flags: SQE_FIXED_FILE, fd: 0, address, length: 1, user: 3 });
  t.same(ring.run(), [{ user: 3, result: -9 }], 'an empty slot');

  const range = { code: 'ERR_OUT_OF_RANGE' };
  t.throws(() => native.uringRegisterFiles(ring.region.fd, new Int32Array(0)), range);
  t.throws(() => native.uringRegisterFiles(ring.region.fd, Int32Array.of(100_000)), {
    code: 'EBADF',
    syscall: 'io_uring_register',
  });
  t.throws(() => native.uringRegisterFiles(ring.region.fd, [1] as unknown as Int32Array), {
    code: 'ERR_INVALID_ARG_TYPE',
  });
  t.throws(() => native.uringRegisterBuffers(ring.region.fd, Float64Array.of(address)), range);
  t.throws(() => native.uringRegisterBuffers(ring.region.fd, Float64Array.of(-1, 4096)), range);
  t.throws(
    () => native.uringRegisterBuffers(ring.region.fd, Float64Array.of(Number.NaN, 4096)),
    range,
  );
  t.throws(() => native.uringRegisterBuffers(ring.region.fd, Float64Array.of(4096, 4096)), {
    code: 'EFAULT',
  });
  t.throws(() => native.uringRegisterBuffers(fd, Float64Array.of(address, 4096)), {
    code: 'ENOTSUP',
  });
  ring.close();
  closeSync(fd);
});

t.test('a wait is bounded by its timeout', async (t) => {
  const ring = new Ring(native.uringSetup(4, 0, 0));
  const start = native.clock();
  t.equal(native.uringEnter(ring.region.fd, 0, 1, ENTER_GETEVENTS, 20_000), -ETIME);
  t.ok(native.clock() - start >= 20e6);
  t.equal(
    native.uringEnter(ring.region.fd, 0, 1, 0, 0),
    -ETIME,
    'GETEVENTS is implied, 0 only looks',
  );
  t.equal(
    native.uringEnter(ring.region.fd, 0, 0, 0, 1e9),
    0,
    'no wait without completions to wait for',
  );

  // Without a bound: an eventfd, signalled by another thread, ends it.
  const event = native.eventfdCreate();
  const memory = bytes(native.mapAnonymous(4096));
  ring.push({ op: OP.READ, fd: event, address: native.addressOf(memory), length: 8, user: 9 });
  t.equal(native.uringEnter(ring.region.fd, 1, 0, 0, -1), 1);
  t.equal(ring.reap(), undefined);
  const worker = new Worker(
    `import(${JSON.stringify(new URL('../../src/native/index.js', import.meta.url).href)}).then(({ native }) => native.eventfdSignal(${event}))`,
    { eval: true },
  );
  await new Promise((resolve) => worker.once('exit', resolve));
  t.equal(native.uringEnter(ring.region.fd, 0, 1, ENTER_GETEVENTS, -1), 0);
  t.same(ring.reap(), { user: 9, result: 8 });
  t.equal(memory[0], 1);
  ring.close();
  closeSync(event);
});

t.test('uringEnter returns errors instead of throwing', async (t) => {
  const event = native.eventfdCreate();
  t.equal(native.uringEnter(-1, 0, 0, 0, -1), -9);
  t.equal(native.uringEnter(event, 1, 0, 0, -1), -95, 'not a ring');
  t.equal(native.uringEnter('x' as unknown as number, 0, 0, 0, -1), -9);
  const region = native.uringSetup(1, 0, 0);
  t.equal(native.uringEnter(region.fd, 0, 0, 1 << 30, -1), -22, 'unknown flags');
  closeSync(region.fd);
  closeSync(event);
});

t.test('uringSetup refuses what it cannot give, and leaks nothing', async (t) => {
  const before = readdirSync('/proc/self/fd').length;
  t.throws(() => native.uringSetup(0, 0, 0), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => native.uringSetup(8, -1, 0), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => native.uringSetup(8, 0, 2 ** 32), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => native.uringSetup(8, 0, SETUP_NO_MMAP), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => native.uringSetup(8, 0, 0x8000_0000), {
    code: 'EINVAL',
    syscall: 'io_uring_setup',
  });
  t.throws(() => native.uringSetup(1e6, 0, 0), {
    code: 'EINVAL',
    errno: 22,
    message: /\(Linux \d+\..* takes no ring of 1000000 entries with flags 0x0: .* Linux 6\.1/,
  });
  t.throws(() => native.uringSetup('8' as unknown as number, 0, 0), {
    code: 'ERR_INVALID_ARG_TYPE',
  });
  t.equal(readdirSync('/proc/self/fd').length, before);
  const clamped = native.uringSetup(1e6, 0, SETUP_CLAMP);
  t.equal(clamped.sqEntries, 32768, 'flags pass through');
  closeSync(clamped.fd);
});

t.test('a worker owns a ring of its own', async (t) => {
  const addon = new URL('../../src/native/index.js', import.meta.url).href;
  const worker = new Worker(
    `const { parentPort } = require('node:worker_threads');
     import(${JSON.stringify(addon)}).then(({ native }) => {
       const ring = native.uringSetup(4, 0, (1 << 12) | (1 << 13)); // SINGLE_ISSUER, DEFER_TASKRUN
       const words = new Int32Array(ring.rings, 0, ring.rings.byteLength >> 2);
       new DataView(ring.sqes).setUint32(32, 7, true);
       Atomics.store(words, ring.sqTail >> 2, 1);
       const submitted = native.uringEnter(ring.fd, 1, 1, 1, 1e6);
       parentPort.postMessage([submitted, words[ring.cqTail >> 2], words[ring.cqes >> 2]]);
       require('node:fs').closeSync(ring.fd);
     });`,
    { eval: true, trackUnmanagedFds: false },
  );
  const [message] = await Promise.all([
    new Promise((resolve) => worker.once('message', resolve)),
    new Promise((resolve) => worker.once('exit', resolve)),
  ]);
  t.same(message, [1, 1, 7]);
});
