/** The addon's memory: mapping, aliasing, revoking, and surviving a truncated file. */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { native } from '../../src/native/index.ts';

const PAGE = 4096;
const directory = mkdtempSync(join(tmpdir(), 'doorbell-'));
t.teardown(() => rmSync(directory, { recursive: true }));

const bytes = (buffer: SharedArrayBuffer) => new Uint8Array(buffer);

/** A plain file of this many bytes, open for reading and writing: unlike a memfd made by the addon it can be truncated. */
function plainFile(name: string, size: number): number {
  const fd = openSync(join(directory, name), 'w+');
  ftruncateSync(fd, size);
  return fd;
}

t.test('a memfd is shared between its mappings and its descriptor', async (t) => {
  const fd = native.memfdCreate('guest', 8 * PAGE);
  const whole = bytes(native.mapFile(fd, 0, 8 * PAGE, true));
  const tail = bytes(native.mapFile(fd, 7 * PAGE, PAGE, true));
  t.equal(whole.length, 8 * PAGE);
  t.equal(whole.buffer instanceof SharedArrayBuffer, true);
  tail[5] = 99;
  t.equal(whole[7 * PAGE + 5], 99);
  writeSync(fd, 'hello', PAGE);
  t.equal(Buffer.from(whole.subarray(PAGE, PAGE + 5)).toString(), 'hello');
  closeSync(fd);
  whole[0] = 1;
  t.equal(whole[0], 1, 'the mapping outlives the descriptor');
});

t.test('a memfd has its size for good', async (t) => {
  const fd = native.memfdCreate('sealed', PAGE);
  t.throws(() => ftruncateSync(fd, 0), { code: 'EPERM' });
  t.throws(() => ftruncateSync(fd, 2 * PAGE), { code: 'EPERM' });
  t.match(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'), /^flags:\s+02\d+/m, 'close-on-exec');
  closeSync(fd);
  t.throws(() => native.memfdCreate('x'.repeat(250), PAGE), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => native.memfdCreate('a\0b', PAGE), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => native.memfdCreate('x', -1), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => native.memfdCreate('x', 0.5), { code: 'ERR_OUT_OF_RANGE' });
});

t.test('mapFile refuses what it cannot map', async (t) => {
  const fd = native.memfdCreate('guest', 2 * PAGE);
  t.throws(() => native.mapFile(fd, 0, 2 * PAGE + 1, true), {
    code: 'EINVAL',
    errno: 22,
    syscall: 'mmap',
  });
  t.throws(() => native.mapFile(fd, 2 * PAGE, 1, true), { code: 'EINVAL' });
  t.throws(() => native.mapFile(fd, 2 ** 53 - PAGE, PAGE, true), { code: 'EINVAL' });
  t.throws(() => native.mapFile(fd, 512, PAGE, true), {
    name: 'RangeError',
    code: 'ERR_OUT_OF_RANGE',
  });
  t.throws(() => native.mapFile(fd, 0, 0, true), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => native.mapFile(fd, -PAGE, PAGE, true), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => native.mapFile(fd, 0, Number.NaN, true), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => native.mapFile(-1, 0, PAGE, true), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => native.mapFile(fd, 0, PAGE, 1 as unknown as boolean), {
    name: 'TypeError',
    code: 'ERR_INVALID_ARG_TYPE',
  });
  t.throws(() => native.mapFile('3' as unknown as number, 0, PAGE, true), {
    code: 'ERR_INVALID_ARG_TYPE',
  });
  closeSync(fd);
  t.throws(() => native.mapFile(fd, 0, PAGE, true), { code: 'EBADF', errno: 9, syscall: 'fstat' });

  const readOnly = openSync('/proc/self/exe', 'r');
  t.throws(() => native.mapFile(readOnly, 0, PAGE, true), { code: 'EACCES' });
  t.same([...bytes(native.mapFile(readOnly, 0, 4, false))], [0x7f, 0x45, 0x4c, 0x46]);
  closeSync(readOnly);
});

t.test('a device is mapped whatever size fstat gives', async (t) => {
  const fd = openSync('/dev/zero', 'r+');
  t.equal(bytes(native.mapFile(fd, 0, PAGE, true))[100], 0);
  closeSync(fd);
});

t.test('mapped pages are left out of core dumps', async (t) => {
  const fd = native.memfdCreate('guest', PAGE);
  const view = bytes(native.mapFile(fd, 0, PAGE, true));
  const start = native.addressOf(view).toString(16);
  const smaps = readFileSync('/proc/self/smaps', 'utf8');
  const entry = smaps.slice(smaps.search(new RegExp(`^0*${start}-`, 'm')));
  t.match(/^VmFlags:.*$/m.exec(entry)?.[0], / dd/);
  closeSync(fd);
});

t.test('addressOf gives the address of the first byte of any view', async (t) => {
  const buffer = native.mapAnonymous(2 * PAGE);
  const base = native.addressOf(bytes(buffer));
  t.equal(base % PAGE, 0);
  t.equal(native.addressOf(new DataView(buffer, 3)), base + 3);
  t.equal(native.addressOf(new Uint32Array(buffer, PAGE, 4)), base + PAGE);
  t.equal(native.addressOf(new BigInt64Array(buffer, 8, 1)), base + 8);
  t.throws(() => native.addressOf(buffer as unknown as Uint8Array), {
    code: 'ERR_INVALID_ARG_TYPE',
  });
  t.throws(() => native.addressOf(5 as unknown as Uint8Array), { code: 'ERR_INVALID_ARG_TYPE' });
});

t.test('an alias shares pages with both of its sources', async (t) => {
  const fd = native.memfdCreate('guest', 4 * PAGE);
  const first = bytes(native.mapFile(fd, 0, 4 * PAGE, true));
  const second = bytes(native.mapAnonymous(2 * PAGE));
  const addresses = [
    native.addressOf(first) + 2 * PAGE,
    native.addressOf(second),
    native.addressOf(first),
  ];
  const alias = bytes(
    native.mapAlias(Float64Array.from(addresses), Float64Array.of(2 * PAGE, 2 * PAGE, PAGE)),
  );
  t.equal(alias.length, 5 * PAGE);

  alias[0] = 1;
  alias[2 * PAGE] = 2;
  alias[4 * PAGE + 1] = 3;
  t.same([first[2 * PAGE], second[0], first[1]], [1, 2, 3]);
  first[4 * PAGE - 1] = 4;
  second[2 * PAGE - 1] = 5;
  t.same([alias[2 * PAGE - 1], alias[4 * PAGE - 1]], [4, 5]);

  native.revoke(first);
  alias[0] = 7;
  t.equal(first[2 * PAGE], 0, 'the revoked source no longer sees the alias');
  const word = Buffer.alloc(1);
  readSync(fd, word, 0, 1, 2 * PAGE);
  t.equal(word[0], 7, 'the alias still has the file');
  t.throws(() => native.mapAlias(Float64Array.of(native.addressOf(first)), Float64Array.of(PAGE)), {
    code: 'EINVAL',
    syscall: 'mremap',
  });
  native.revoke(alias);
  t.same([alias[0], alias[2 * PAGE], second[0]], [0, 0, 2]);
  closeSync(fd);
});

t.test('mapAlias takes whole pages inside live mappings only', async (t) => {
  const view = bytes(native.mapAnonymous(2 * PAGE));
  const base = native.addressOf(view);
  const alias = (address: number, length: number) =>
    native.mapAlias(Float64Array.of(address), Float64Array.of(length));
  const range = { name: 'RangeError', code: 'ERR_OUT_OF_RANGE' };
  t.throws(() => alias(base, 3 * PAGE), range, 'past the end');
  t.throws(() => alias(base + PAGE, 2 * PAGE), range, 'past the end');
  t.throws(() => alias(base - PAGE, PAGE), range, 'before the start');
  t.throws(() => alias(base + 8, PAGE), range, 'not aligned');
  t.throws(() => alias(base, 8), range, 'not whole pages');
  t.throws(() => alias(base, 0), range);
  t.throws(() => alias(Number.NaN, PAGE), range);
  t.throws(() => alias(native.addressOf(new Uint8Array(2 * PAGE)), PAGE), range, 'not our memory');
  t.throws(() => native.mapAlias(new Float64Array(0), new Float64Array(0)), range);
  t.throws(() => native.mapAlias(Float64Array.of(base), Float64Array.of(PAGE, PAGE)), range);
  t.throws(() => native.mapAlias([base] as unknown as Float64Array, Float64Array.of(PAGE)), {
    code: 'ERR_INVALID_ARG_TYPE',
  });
});

t.test('revoke replaces one whole mapping by zeros', async (t) => {
  const fd = native.memfdCreate('guest', 4 * PAGE);
  const view = bytes(native.mapFile(fd, PAGE, 2 * PAGE, true));
  view.fill(0xaa);
  const range = { code: 'ERR_OUT_OF_RANGE' };
  t.throws(() => native.revoke(view.subarray(PAGE)), range);
  t.throws(() => native.revoke(view.subarray(0, PAGE)), range);
  t.throws(() => native.revoke(new Uint8Array(PAGE)), range);
  t.throws(() => native.revoke(new Uint8Array(0)), range);
  t.equal(view[0], 0xaa, 'a refused revoke changes nothing');

  native.revoke(new DataView(view.buffer));
  t.ok(view.every((byte) => byte === 0));
  view[0] = 1;
  const byte = Buffer.alloc(1);
  readSync(fd, byte, 0, 1, PAGE);
  t.equal(byte[0], 0xaa, 'a stale write does not reach the file');
  t.notMatch(
    readFileSync('/proc/self/maps', 'utf8'),
    new RegExp(`^0*${native.addressOf(view).toString(16)}-.*memfd`, 'm'),
  );
  native.revoke(view);
  t.equal(view[0], 0, 'and may be repeated');
  closeSync(fd);
});

t.test('revoke works on a read-only mapping', async (t) => {
  const fd = openSync('/proc/self/exe', 'r');
  const view = bytes(native.mapFile(fd, 0, PAGE, false));
  native.revoke(view);
  view[0] = 1;
  t.equal(view[1], 0);
  closeSync(fd);
});

t.test('memory whose file is truncated is given up whole, and the process lives', async (t) => {
  const fd = plainFile('shrinking', 16 * PAGE);
  const view = bytes(native.mapFile(fd, 0, 16 * PAGE, true, 7));
  const other = bytes(native.mapFile(fd, 0, 16 * PAGE, true, 8));
  const alias = bytes(
    native.mapAlias(Float64Array.of(native.addressOf(view) + 8 * PAGE), Float64Array.of(8 * PAGE)),
  );
  view.fill(0x55);
  ftruncateSync(fd, 8 * PAGE);
  native.takeLost();
  const before = native.faultCount();
  t.equal(view[7 * PAGE], 0x55, 'what the file still has is there');
  t.equal(view[9 * PAGE], 0);
  t.equal(native.faultCount(), before + 1);
  t.equal(view[7 * PAGE], 0, 'until something was touched that it has not');
  view[10 * PAGE] = 3;
  t.equal(view[10 * PAGE], 3, 'a write goes to private memory');
  t.equal(native.faultCount(), before + 1, 'there is one fault a mapping');
  t.same([view, other, alias].map(native.isLost), [true, false, false]);
  t.equal(other[7 * PAGE], 0x55, 'other mappings are their own');
  t.same(native.takeLost(), [7]);
  t.same(native.takeLost(), [], 'once');
  t.equal(alias[0], 0, 'aliases are guarded too');
  t.same(native.takeLost(), [7], 'and owned like their sources');

  const target = bytes(native.mapAnonymous(PAGE));
  target.fill(9);
  native.copyBatch(
    Float64Array.of(native.addressOf(target), native.addressOf(other) + 12 * PAGE, PAGE),
    1,
  );
  t.ok(
    target.every((byte) => byte === 0),
    'a copy by the addon is guarded',
  );
  t.same(native.takeLost(), [8]);
  closeSync(fd);
});

t.test('an event tells of lost memory', async (t) => {
  const fd = plainFile('announced', PAGE);
  const view = bytes(native.mapFile(fd, 0, PAGE, true, 9));
  const told = new Promise<number[]>((resolve) => {
    const poll = new native.FdPoll(native.faultEvent(), () => {
      native.eventfdRead(native.faultEvent());
      const owners = native.takeLost();
      if (owners.includes(9)) {
        poll.close();
        resolve(owners);
      }
    });
    poll.start(true, false);
  });
  ftruncateSync(fd, 0);
  t.equal(view[0], 0);
  t.same(await told, [9]);
  closeSync(fd);
});

t.test('faults do not use up the mappings of the process', async (t) => {
  const pages = 1024;
  const fd = plainFile('shredded', pages * PAGE);
  const view = bytes(native.mapFile(fd, 0, pages * PAGE, true));
  ftruncateSync(fd, PAGE);
  const maps = () => readFileSync('/proc/self/maps', 'utf8').split('\n').length;
  const before = maps();
  let wrong = 0;
  for (let page = 1; page < pages; page += 2) if (view[page * PAGE] !== 0) wrong += 1;
  t.equal(wrong, 0);
  t.ok(maps() - before < 100, 'all of it was replaced at once');
  closeSync(fd);
});

t.test('a large mapping is replaced at once, however much of it was touched', async (t) => {
  const size = 2 ** 30;
  const replaced: ((view: DataView, fd: number) => void)[] = [
    (view, fd) => {
      ftruncateSync(fd, size - PAGE);
      t.equal(view.getUint8(size - PAGE), 0);
      t.same(native.takeLost(), [12]);
    },
    (view) => native.revoke(view),
  ];
  for (const replace of replaced) {
    const fd = openSync(`/dev/shm/doorbell-${process.pid}`, 'w+');
    rmSync(`/dev/shm/doorbell-${process.pid}`);
    ftruncateSync(fd, size);
    const view = new DataView(native.mapFile(fd, 0, size, true, 12));
    for (let at = 0; at < size / 4; at += PAGE) {
      view.setUint8(at, 1);
    }
    const start = native.addressOf(view);
    replace(view, fd);
    t.equal(view.getUint8(0), 0);
    view.setUint8(0, 7);
    t.equal(view.getUint8(0), 7);
    t.equal(readSync(fd, new Uint8Array(1), 0, 1, 0), 1, 'the file is as it was');
    // Neither the mapping nor what was moved refers to it, once the thread has done its work.
    const refers = () =>
      readFileSync('/proc/self/maps', 'utf8')
        .split('\n')
        .some((line) => line.includes(`/dev/shm/doorbell-${process.pid}`));
    while (refers()) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    t.equal(native.addressOf(view), start);
    closeSync(fd);
  }
});

/** Sends the thread that loads it a SIGBUS as the kernel does for a page that the hardware has lost. */
const MEMORY_ERROR = `
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
__attribute__((constructor)) static void raise_it(void) {
  siginfo_t info = {0};
  info.si_signo = SIGBUS;
  info.si_code = atoi(getenv("DOORBELL_TEST_CODE"));
  info.si_addr = (void *)strtoull(getenv("DOORBELL_TEST_ADDRESS"), NULL, 10);
  syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGBUS, &info);
}
`;

t.test('a page that the hardware has lost costs its mapping, and not the process', async (t) => {
  for (const [name, code] of [
    ['BUS_MCEERR_AR', 4],
    ['BUS_MCEERR_AO', 5],
  ] as const) {
    const fd = plainFile('poisoned', 4 * PAGE);
    const view = bytes(native.mapFile(fd, 0, 4 * PAGE, true, 11));
    view.fill(1);
    const library = join(directory, `${name}.so`);
    execFileSync('cc', ['-shared', '-fPIC', '-xc', '-', '-o', library], { input: MEMORY_ERROR });
    process.env.DOORBELL_TEST_CODE = `${code}`;
    process.env.DOORBELL_TEST_ADDRESS = `${native.addressOf(view) + 2 * PAGE}`;
    t.throws(() => process.dlopen({ exports: {} }, library), { code: 'ERR_DLOPEN_FAILED' });
    t.equal(view[0], 0, name);
    t.same(native.takeLost(), [11]);
    closeSync(fd);
  }
});

t.test('what is a memory file', async (t) => {
  const memfd = native.memfdCreate('memory', PAGE);
  const path = `/dev/shm/doorbell-${process.pid}`;
  const shared = openSync(path, 'w+');
  rmSync(path);
  const others = ['/proc/self/exe', '/dev/zero', '/proc/self/status', directory].map((path) =>
    openSync(path, 'r'),
  );
  t.equal(native.isMemoryFile(memfd), true);
  t.equal(native.isMemoryFile(shared), true);
  t.same(others.map(native.isMemoryFile), [false, false, false, false]);
  [memfd, shared, ...others].forEach(closeSync);
});

t.test('a SIGBUS that is not ours still ends the process', async (t) => {
  const native = new URL('../../src/native/index.js', import.meta.url).href;
  const script = `
    const { native } = await import(${JSON.stringify(native)});
    native.mapFile(native.memfdCreate('x', 4096), 0, 4096, true);
    process.kill(process.pid, 'SIGBUS');
    setTimeout(() => {}, 10_000);`;
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    timeout: 60_000,
  });
  t.equal(child.signal, 'SIGBUS', child.stderr.toString());
});

t.test('mapAnonymous gives zeroed memory', async (t) => {
  const view = bytes(native.mapAnonymous(3 * PAGE));
  t.equal(view.length, 3 * PAGE);
  t.ok(view.every((byte) => byte === 0));
  t.throws(() => native.mapAnonymous(0), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => native.mapAnonymous(2 ** 47), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => native.mapAnonymous(2 ** 47 - PAGE), {
    code: 'ENOMEM',
    errno: 12,
    syscall: 'mmap',
  });
});

/** A directory on hugetlbfs with this many free pages of 2 MiB, if there is one. */
function hugePages(count: number): string | undefined {
  const free = Number(/HugePages_Free:\s+(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]);
  const mount = /^\S+ (\S+) hugetlbfs .*pagesize=2M/m.exec(readFileSync('/proc/mounts', 'utf8'));
  return free >= count ? mount?.[1] : undefined;
}

t.test('files of huge pages are mapped, replaced and revoked in huge pages', async (t) => {
  const HUGE = 2 ** 21;
  const mount = hugePages(4);
  if (mount === undefined) {
    t.pass('no huge pages here', { skip: true });
    return;
  }
  const path = join(mount, `doorbell-${process.pid}`);
  const fd = openSync(path, 'w+');
  rmSync(path);
  ftruncateSync(fd, 4 * HUGE);
  const whole = bytes(native.mapFile(fd, 0, 4 * HUGE, true));
  const part = bytes(native.mapFile(fd, HUGE + 0xc0000, HUGE, true));
  for (let i = 0; i < 4; i++) whole[i * HUGE] = i + 1;
  part[0] = 77;
  t.equal(whole[HUGE + 0xc0000], 77, 'a range need not start at a huge page');
  t.throws(() => native.mapAlias(Float64Array.of(native.addressOf(whole)), Float64Array.of(HUGE)), {
    code: 'ENOTSUP',
  });
  native.revoke(part);
  t.same([part[0], whole[HUGE]], [0, 2]);
  ftruncateSync(fd, 2 * HUGE);
  t.same([whole[3 * HUGE], whole[3 * HUGE + 5], whole[HUGE]], [0, 0, 0]);
  native.revoke(whole);
  t.equal(whole[HUGE], 0);
  closeSync(fd);
});

t.test('a large sparse file is mapped whole and read at its end', async (t) => {
  const size = 64 * 2 ** 30;
  const fd = native.memfdCreate('large', size);
  const buffer = native.mapFile(fd, 0, size, true);
  t.equal(buffer.byteLength, size);
  const words = new Uint32Array(buffer, size - PAGE, PAGE / 4);
  words[0] = 0xdeadbeef;
  t.equal(new DataView(buffer).getUint32(size - PAGE, true), 0xdeadbeef);
  native.revoke(new DataView(buffer));
  t.equal(words[0], 0);
  closeSync(fd);
});
