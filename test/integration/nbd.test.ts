/** Exports of real NBD servers as namespaces: what is written is read, by whatever replies, block sizes and abilities the server has. */
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { connect } from '../../src/client/drive.ts';
import { DatasetManagement, DsmRange, Write, WriteZeroes } from '../../src/spec/nvm.ts';
import { code } from '../helpers/admin.ts';
import { runWorkload } from '../helpers/integrity.ts';
import { NbdServer, noNbdkit, noQemuNbd } from '../helpers/nbd-server.ts';
import { Random } from '../helpers/random.ts';
import { PagePool } from '../helpers/scatter.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const DISK = 16 * MIB;
const NEVER = { timeout: 0 };

async function hammer(t: Test, target: TestTarget, bdev: string, blockSize = 512) {
  const random = new Random();
  t.comment(`SEED=${random.seed}`);
  const client = await target.connect(await target.serve(bdev));
  const pairs = [
    await client.createQueuePair(1, 64),
    await client.createQueuePair(2, 5),
    await client.createQueuePair(3, 256),
  ];
  const pool = new PagePool(random).add(client.memory);
  const copy = new Uint8Array(DISK);
  const load = { pairs, nsid: 1, blockSize, copy, pool, random };
  await runWorkload({ ...load, workers: 4, commands: 40 });
  await runWorkload({ ...load, workers: 16, commands: 20, maxBytes: 64 * 1024 });
  t.pass('every byte was as it should be');
  return copy;
}

t.test('nbdkit, and a connection for each of two reactors', { skip: noNbdkit }, async (t) => {
  const server = await NbdServer.nbdkit(t, 'memory', `${DISK}`);
  const target = await TestTarget.start(t, { reactors: 2 });
  const bdev = await target.target.createBdev('nbd', { name: 'n', uri: server.uri() });
  t.match(bdev, {
    blockSize: 512,
    numBlocks: DISK / 512,
    readonly: false,
    productName: 'NBD disk',
  });
  await hammer(t, target, 'n');
  const { nbd } = bdev.driverSpecific as { nbd: Record<string, unknown> };
  t.match(nbd, { connections: 2, reconnects: 0, in_flight: 0, flush_fails: false });
  t.ok(Number(nbd.requests) > 0);
  t.ok((nbd.export_flags as string[]).includes('can_multi_conn'));
  await target.target.deleteBdev('n', 'nbd');
});

t.test('nbdkit with simple replies', { skip: noNbdkit }, async (t) => {
  const server = await NbdServer.nbdkit(t, '--no-sr', 'memory', `${DISK}`);
  const target = await TestTarget.start(t);
  const bdev = await target.target.createBdev('nbd', { name: 'n', uri: server.uri(), ...NEVER });
  t.match(bdev.driverSpecific, { nbd: { structured_replies: false } });
  await hammer(t, target, 'n');
});

t.test('small requests, and blocks of 4 KiB', { skip: noNbdkit }, async (t) => {
  const server = await NbdServer.nbdkit(t, '--filter=blocksize-policy', 'memory', `${DISK}`, 'blocksize-minimum=4K', 'blocksize-maximum=64K', 'blocksize-error-policy=error'); // biome-ignore format: a command
  const target = await TestTarget.start(t);
  const small = { name: 'small', uri: server.uri(), block_size: 512 };
  await t.rejects(target.target.createBdev('nbd', small), { message: /block_size.*4096 bytes/ });
  const bdev = await target.target.createBdev('nbd', { name: 'n', uri: server.uri() });
  t.match(bdev, { blockSize: 4096 });
  await hammer(t, target, 'n', 4096);
});

t.test(
  'blocks that are too large, and servers that know too little',
  { skip: noNbdkit },
  async (t) => {
    const target = await TestTarget.start(t, { reactors: 2 });
    const large = await NbdServer.nbdkit(t, '--filter=blocksize-policy', 'memory', `${DISK}`, 'blocksize-minimum=8K', 'blocksize-preferred=8K'); // biome-ignore format: a command
    const create = (uri: string, rest = {}) =>
      target.target.createBdev('nbd', { name: 'n', uri, ...rest });
    await t.rejects(create(large.uri()), { message: /less than 8192 bytes/ });
    const single = await NbdServer.nbdkit(t, '--filter=multi-conn', 'memory', `${DISK}`, 'multi-conn-mode=disable'); // biome-ignore format: a command
    await t.rejects(create(single.uri()), { message: /CAN_MULTI_CONN.*2 reactors/ });
    const reader = await create(single.uri(), { readonly: true });
    t.ok(reader.readonly, 'who only reads may do so over several');
    await target.target.deleteBdev('n', 'nbd');
    await t.rejects(create('nbd+unix:///?socket=/nonexistent'), { code: 'ENOENT' });
  },
);

t.test('qemu-nbd on a file', { skip: noQemuNbd }, async (t) => {
  const target = await TestTarget.start(t);
  const path = join(target.folder, 'disk.img');
  writeFileSync(path, '');
  truncateSync(path, DISK);
  const server = await NbdServer.qemuNbd(t, '--discard=unmap', '-f', 'raw', path);
  await target.target.createBdev('nbd', { name: 'n', uri: server.uri() });
  const copy = await hammer(t, target, 'n');
  await target.target.deleteBdev('n', 'nbd');
  await server.kill();
  t.ok(readFileSync(path).equals(copy), 'the file holds what was written');
});

/** What nbdkit's log filter has written: the calls, as 'Write flags=…'. */
const callsIn = (log: string): string[] =>
  readFileSync(log, 'utf8')
    .split('\n')
    .filter((line) => / (Read|Write|Flush|Trim|Zero) id=/.test(line))
    .map((line) => line.replace(/^.*?(Read|Write|Flush|Trim|Zero) id=\d+ ?/, '$1 ').trim());

t.test(
  'FUA, Flush, zeroes and discards reach the server as such',
  { skip: noNbdkit },
  async (t) => {
    const target = await TestTarget.start(t);
    const log = join(target.folder, 'log');
    const server = await NbdServer.nbdkit(t, '--filter=log', 'memory', `${DISK}`, `logfile=${log}`);
    await target.target.createBdev('nbd', { name: 'n', uri: server.uri() });
    const { socket } = await target.serve('n');
    const drive = await connect(socket);
    t.teardown(() => drive.close());
    const disk = await drive.namespace();
    const data = new Uint8Array(8192).fill(7);
    await disk.write(0, data);
    await disk.write(16, data, { fua: true });
    await disk.flush();
    const range = { nsid: 1, slba: 0, nlbZ: 7 };
    await drive.io(WriteZeroes.fields(range));
    await drive.io(WriteZeroes.fields({ ...range, slba: 8, deac: true, fua: true }));
    const discard = DsmRange.encode({ length: 16, slba: 16 });
    await drive.io(DatasetManagement.fields({ nsid: 1, nrZ: 0, ad: true }), { write: discard });
    t.same(await disk.read(0, 16), new Uint8Array(8192));
    const beyond = Write.fields({ ...range, slba: DISK / 512 });
    const outcome = drive.io(beyond, { write: data.subarray(0, 4096) });
    t.equal(await outcome.then(() => 'success', code), '0/80');
    t.match(callsIn(log).slice(0, 6), [
      /^Write offset=0x0 count=0x2000(?!.*fua=1)/,
      /^Write offset=0x2000 count=0x2000 fua=1/,
      /^Flush/,
      /^Zero offset=0x0 count=0x1000 trim=0 fua=0/,
      /^Zero offset=0x1000 count=0x1000 trim=1 fua=1/,
      /^Trim offset=0x2000 count=0x2000/,
    ]);
  },
);

t.test(
  'servers that know less: what is missing is made of what there is',
  { skip: noNbdkit },
  async (t) => {
    const target = await TestTarget.start(t);
    const log = join(target.folder, 'log');
    const image = target.image(MIB);
    const server = await NbdServer.nbdkit(
      t,
      '--filter=log',
      'eval',
      `logfile=${log}`,
      `get_size=echo ${MIB}`,
      `pread=dd if=${image} count=$3 skip=$4 iflag=count_bytes,skip_bytes`,
      `pwrite=dd of=${image} conv=notrunc seek=$4 oflag=seek_bytes`,
      ...['write', 'flush'].map((can) => `can_${can}=exit 0`),
      ...['trim', 'zero'].map((can) => `can_${can}=exit 3`),
      'can_fua=echo none',
      'flush=exit 0',
    );
    const fua = { name: 'n', uri: server.uri(), on_reconnect: 'fua' };
    await t.rejects(target.target.createBdev('nbd', fua), { message: /knows FUA/ });
    await target.target.createBdev('nbd', { name: 'n', uri: server.uri() });
    const drive = await connect((await target.serve('n')).socket);
    t.teardown(() => drive.close());
    const disk = await drive.namespace();
    await disk.write(0, new Uint8Array(4096).fill(7), { fua: true });
    await drive.io(WriteZeroes.fields({ nsid: 1, slba: 0, nlbZ: 3 }));
    t.same([...(await disk.read(0, 8)).slice(2046, 2050)], [0, 0, 7, 7]);
    t.match(callsIn(log), [
      /^Write offset=0x0 count=0x1000/,
      /^Flush/,
      /^Write offset=0x0 count=0x800/,
      /^Read/,
    ]);
  },
);
