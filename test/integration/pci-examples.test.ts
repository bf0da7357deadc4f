/** The devices of examples/pci, as a driver of theirs sees them. What Linux makes of them is in test/vm. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { VfioClient } from '../../src/client/vfio.ts';
import { native } from '../../src/native/index.ts';
import { PciIrq, PciRegion } from '../../src/spec/vfio-user.ts';
import { bareEnvironment } from '../helpers/bare-environment.ts';
import { parseMarkdown } from '../helpers/markdown.ts';
import { PciExample } from '../helpers/pci-example.ts';
import { Caller, eventfd, memfd, socketPath, words } from '../helpers/vfio.ts';

async function join(t: Test, { path }: { readonly path: string }): Promise<VfioClient> {
  const client = VfioClient.connect(path);
  t.teardown(() => client.close());
  await client.version();
  return client;
}

/** Resolves when the eventfd was signalled. */
async function signalled(fd: number): Promise<void> {
  while (native.eventfdRead(fd) === 0) await new Promise((resolve) => setTimeout(resolve, 1));
}

t.test('a GPIO card', async (t) => {
  const card = await PciExample.start(t, 'gpio-card');
  const client = await join(t, card);
  const pin = eventfd(t);
  await client.connectIrqs(PciIrq.INTX, 0, [pin]);
  const read = async (register: number) => (await client.regionRead(2, register, 1))[0];
  const write = (register: number, value: number) =>
    client.regionWrite(2, register, Uint8Array.of(value));
  t.same(Buffer.from(await client.regionRead(PciRegion.CONFIG, 0, 4)), words([4, 0x0dc8_494f]));
  await write(0, 0x81);
  t.equal(await card.line(/^outputs/), 'outputs 0x0081');
  await write(4, 0x42);
  t.equal(await card.line(/^outputs/), 'outputs 0x4281');
  t.equal(await read(4), 0x42);

  card.say('9=1');
  while ((await read(5)) !== 2) await new Promise((resolve) => setTimeout(resolve, 1));
  t.equal(native.eventfdRead(pin), 0, 'interrupts are not enabled');
  await read(2);
  card.say('0=1');
  await signalled(pin);
  t.equal(await read(1), 1);
  t.equal(await read(6), 5, 'an input of the lower half changed');
  await write(1, 0);
  t.equal(await read(6), 0);
  card.say('9=0');
  await signalled(pin);
  t.equal(await read(6), 6);
  await client.reset();
  t.equal(await card.line(/^outputs/), 'outputs 0x0000');
  t.equal(await card.stop(), 0);
  t.notOk(existsSync(card.path), 'its socket is gone');
});

t.test('a timer that reaches memory by messages', async (t) => {
  const timer = await PciExample.start(t, 'timer');
  const caller = await Caller.join(t, timer.path);
  const pin = eventfd(t);
  await caller.call(8, words([4, 20], [4, 0x24], [4, 0], [4, 0], [4, 1]), [pin]);
  await caller.call(2, words([4, 32], [4, 3], [8, 0], [8, 0x10000], [8, 0x1000]));
  const memory = Buffer.alloc(0x1000);
  await caller.call(10, words([8, 8], [4, 0], [4, 8], [8, 0x10000]));
  const due = Math.floor(Date.now() / 1000) + 1;
  await caller.call(10, words([8, 0], [4, 0], [4, 8], [8, due]));
  await signalled(pin);
  t.ok(Date.now() >= 1000 * due, 'not before its time');
  const seen: [number, number, number][] = [];
  for (let i = 0; i < 7; i++) {
    const { header, payload, view } = await caller.peer.next();
    const address = Number(view.getBigUint64(0, true));
    const count = Number(view.getBigUint64(8, true));
    seen.push([header.command, address, count]);
    const at = address - 0x10000;
    if (header.command === 12) memory.set(payload.subarray(16), Math.max(at, 0));
    const data = header.command === 11 ? memory.subarray(at, at + count) : Buffer.alloc(0);
    const head = words([2, header.messageId], [2, header.command], [4, 32 + data.length]);
    caller.peer.send(Buffer.concat([head, words([4, 1], [4, 0], [8, address], [8, count]), data]));
  }
  t.strictSame(seen, [
    [12, 0, 0],
    [12, 0x10000, 1024],
    [12, 0x10400, 1024],
    [12, 0x10800, 1024],
    [12, 0x10c00, 1024],
    [11, 0x10000, 2048],
    [11, 0x10800, 2048],
  ]);
  t.equal(await timer.line(/^memory/), 'memory is right');
  t.equal(memory.toString('latin1', 0x3ff, 0x401), 'AB');
  t.equal(await timer.stop(), 0);
});

t.test('the edu device', async (t) => {
  const edu = await PciExample.start(t, 'edu');
  const client = await join(t, edu);
  const u32 = async (register: number) =>
    Buffer.from(await client.regionRead(0, register, 4)).readUInt32LE();
  const write = (register: number, value: number) =>
    client.regionWrite(0, register, words([4, value]));
  t.equal(await u32(0), 0x0100_00ed);
  await write(4, 0x1234_5678);
  t.equal(await u32(4), 0xedcb_a987);
  t.equal(await u32(0x40), 0xffff_ffff, 'nothing is there');
  const [pin, message] = [eventfd(t), eventfd(t)];
  await client.connectIrqs(PciIrq.INTX, 0, [pin]);
  await write(0x20, 0x80);
  await write(8, 10);
  await signalled(pin);
  t.equal(await u32(8), 3_628_800);
  t.equal(await u32(0x24), 1);
  await write(0x64, 1);
  t.equal(await u32(0x24), 0);
  await client.connectIrqs(PciIrq.MSI, 0, [message]);
  await write(0x60, 0x8000_0010);
  await signalled(message);
  t.equal(await u32(0x24), 0x8000_0010);
  t.equal(native.eventfdRead(pin), 0);

  const fd = memfd(t, 0x1000);
  const memory = new Uint8Array(native.mapFile(fd, 0, 0x1000, true));
  await client.dmaMap({ iova: 0x20000, size: 0x1000, fd });
  memory.set(Buffer.from('there and back'));
  const move = async (source: number, destination: number, command: number) => {
    await client.regionWrite(0, 0x80, words([8, source], [8, destination], [8, 14]).subarray(0, 8));
    await client.regionWrite(0, 0x88, words([8, destination]));
    await client.regionWrite(0, 0x90, words([8, 14]));
    await write(0x98, command);
    await signalled(message);
    assert.equal(await u32(0x98), command & ~1, 'done');
  };
  await move(0x20000, 0x40010, 5);
  await move(0x40010, 0x20800, 7);
  t.equal(Buffer.from(memory.slice(0x800, 0x80e)).toString(), 'there and back');
  t.equal((await u32(0x24)) & 0x100, 0x100);
  t.equal(await edu.stop(), 0);
});

t.test('the device of docs/guides/pci-device.md', async (t) => {
  const root = fileURLToPath(new URL('../../../', import.meta.url));
  const { fences } = parseMarkdown(readFileSync(`${root}docs/guides/pci-device.md`, 'utf8'));
  const { text } = fences.find(({ language }) => language === 'js')!;
  t.ok(text.trim().split('\n').length <= 40, 'as long as it says');
  const path = socketPath(t);
  const folder = dirname(path);
  mkdirSync(`${folder}/node_modules`);
  symlinkSync(root, `${folder}/node_modules/doorbell-nvme`);
  writeFileSync(`${folder}/stopwatch.mjs`, text);
  const child = spawn(process.execPath, [`${folder}/stopwatch.mjs`, path], {
    stdio: 'inherit',
    env: bareEnvironment(),
  });
  t.teardown(() => child.kill('SIGKILL'));
  while (!existsSync(path)) await new Promise((resolve) => setTimeout(resolve, 10));
  const client = await join(t, { path });
  const pin = eventfd(t);
  await client.connectIrqs(PciIrq.INTX, 0, [pin]);
  await client.regionWrite(0, 0, words([4, 20]));
  await signalled(pin);
  const registers = Buffer.from(await client.regionRead(0, 0, 8));
  t.ok(registers.readUInt32LE(0) >= 19);
  t.equal(registers.readUInt32LE(4), 1);
  await client.regionWrite(0, 4, words([4, 0]));
  client.close();
  child.kill('SIGINT');
  const [code] = await once(child, 'exit');
  t.equal(code, 0);
  t.notOk(existsSync(path));
});

t.test('the command line of a back-end', async (t) => {
  const program = fileURLToPath(new URL('../../../examples/pci/edu.mjs', import.meta.url));
  const run = (...args: string[]) =>
    spawnSync(process.execPath, [program, ...args], { encoding: 'utf8', env: bareEnvironment() });
  const { status, stdout } = run('--print-capabilities');
  t.equal(status, 0);
  t.strictSame(JSON.parse(stdout), { type: 'edu', features: [] });
  t.equal(run().status, 1);
  t.equal(run('--fd=x').status, 1);
  t.match(run('--fd=0', '--socket-path=/x').stderr, /either/);

  const [ours, theirs] = native.socketPair();
  const child = new PciExample(t, 'edu', '', ['--fd=3'], [theirs]);
  const client = new VfioClient(ours);
  await client.version();
  t.equal((await client.regionRead(0, 0, 4))[0], 0xed);
  client.close();
  t.equal(await child.exit, 0, 'the one client is gone');
});
