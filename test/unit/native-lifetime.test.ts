/** When mappings go: collection in one thread and in several, workers that end, the module's own life. */
import { closeSync, readFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Worker } from 'node:worker_threads';
import t from 'tap';
import { native } from '../../src/native/index.ts';

const PAGE = 4096;
const addon = new URL('../../src/native/index.js', import.meta.url).href;
setFlagsFromString('--expose-gc');
const collect: () => void = runInNewContext('gc');

/** Mappings of the process that are of the memfd `name`. */
const mappings = (name: string) =>
  readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => line.includes(`/memfd:${name}`)).length;

/** Collects until `done`, for deleters run on V8's own threads. */
async function collectUntil(done: () => boolean): Promise<boolean> {
  for (let round = 0; round < 100; round++) {
    collect();
    if (done()) return true;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return false;
}

/** Runs a module in a worker thread; `native` and `workerData` are at hand. Resolves to what it posts, after its end. */
function inWorker(body: string, workerData?: unknown): Promise<unknown> {
  const source = `
    const { parentPort, workerData } = require('node:worker_threads');
    import(${JSON.stringify(addon)}).then(({ native }) => { ${body} });`;
  return new Promise((resolve, reject) => {
    let message: unknown;
    const worker = new Worker(source, { eval: true, workerData });
    worker.on('message', (value) => {
      message = value;
    });
    worker.on('error', reject);
    worker.on('exit', () => resolve(message));
  });
}

t.test('a dropped mapping is unmapped by the collector', async (t) => {
  const fd = native.memfdCreate('dropped', PAGE);
  for (let i = 0; i < 100; i++) native.mapFile(fd, 0, PAGE, true);
  closeSync(fd);
  t.ok(await collectUntil(() => mappings('dropped') === 0));
});

t.test('a mapping lives as long as any thread holds it', async (t) => {
  const fd = native.memfdCreate('handed', PAGE);
  let view: Uint8Array | undefined = new Uint8Array(native.mapFile(fd, 0, PAGE, true));
  closeSync(fd);
  const worker = new Worker(
    `const { parentPort } = require('node:worker_threads');
     let view;
     parentPort.on('message', (m) => {
       if (m instanceof SharedArrayBuffer) { view = new Uint8Array(m); view[1] = 2; parentPort.postMessage('held'); }
       else parentPort.postMessage(view[0]);
     });`,
    { eval: true },
  );
  const next = () => new Promise((resolve) => worker.once('message', resolve));
  worker.postMessage(view.buffer);
  await next();
  t.equal(view[1], 2);
  view[0] = 42;
  view = undefined;
  for (let round = 0; round < 5; round++) collect();
  t.equal(mappings('handed'), 1);
  worker.postMessage('done');
  t.equal(await next(), 42);
  t.equal(mappings('handed'), 1);
  await worker.terminate();
  t.ok(await collectUntil(() => mappings('handed') === 0));
});

t.test('a mapping made by a worker outlives it', async (t) => {
  const buffer = await inWorker(`
    const view = new Uint8Array(native.mapFile(native.memfdCreate('orphan', 4096), 0, 4096, true));
    view[7] = 77;
    parentPort.postMessage(view.buffer);`);
  t.equal(new Uint8Array(buffer as SharedArrayBuffer)[7], 77);
});

t.test('the code that unmaps outlives the last worker that loaded it', async (t) => {
  // In a process of its own, whose main thread never loads the addon.
  const { spawnSync } = await import('node:child_process');
  const script = `
    const { Worker } = require('node:worker_threads');
    const source = 'import(${JSON.stringify(addon)}).then(({ native }) => {' +
      'require("node:worker_threads").parentPort.postMessage(native.mapFile(native.memfdCreate("x", 8192), 0, 8192, true)); })';
    const worker = new Worker(source, { eval: true });
    let buffer;
    worker.on('message', (value) => { buffer = value; });
    worker.on('exit', () => {
      new Uint8Array(buffer)[0] = 1;
      buffer = undefined;
      setTimeout(() => { gc(); gc(); setTimeout(() => console.log('alive'), 50); }, 10);
    });`;
  const child = spawnSync(process.execPath, ['--expose-gc', '-e', script], { timeout: 60_000 });
  t.match(child.stdout.toString(), /alive/, child.stderr.toString());
  t.equal(child.status, 0);
});

t.test('a worker does all this on its own', async (t) => {
  const result = await inWorker(`
    const fd = native.memfdCreate('w', 8192);
    const view = new Uint8Array(native.mapFile(fd, 0, 8192, true));
    view[0] = 5;
    const alias = new Uint8Array(native.mapAlias(Float64Array.of(native.addressOf(view)), Float64Array.of(4096)));
    const before = alias[0];
    native.revoke(view);
    parentPort.postMessage([before, view[0], alias[0]]);`);
  t.same(result, [5, 0, 5]);
});

t.test('threads that map, fault and drop at once do not disturb each other', async (t) => {
  const body = `
    const { ftruncateSync, openSync, rmSync } = require('node:fs');
    const name = 'doorbell-' + process.pid + '-' + native.getTid();
    const path = require('node:path').join(require('node:os').tmpdir(), name);
    const fd = openSync(path, 'w+');
    rmSync(path);
    let wrong = 0;
    for (let round = 0; round < 50; round++) {
      ftruncateSync(fd, 65536);
      for (let i = 0; i < round % 7; i++) native.mapFile(fd, 0, 4096 * (i + 1), true);
      const view = new Uint8Array(native.mapFile(fd, 0, 65536, true));
      view.fill(1);
      ftruncateSync(fd, 4096);
      if (view[0] !== 1 || view[4096 * (1 + (round % 15))] !== 0 || view[0] !== 0) wrong += 1;
      view[0] = 1;
      if (round % 3 === 0) native.revoke(view);
      if (view[0] !== (round % 3 === 0 ? 0 : 1)) wrong += 1;
    }
    parentPort.postMessage(wrong);`;
  const before = native.faultCount();
  t.same(await Promise.all([inWorker(body), inWorker(body), inWorker(body)]), [0, 0, 0]);
  t.equal(native.faultCount() - before, 150);
});

t.test(
  'reclaim collects after many revocations, in a thread whose event loop never turns',
  async (t) => {
    const result = (await inWorker(`
    const { readFileSync } = require('node:fs');
    const fd = native.memfdCreate('reclaimed', 2 ** 36);
    const size = () => Number(/VmSize:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 2 ** 20;
    const idle = native.reclaim();
    const start = size();
    let peak = 0;
    let runs = 0;
    for (let i = 0; i < 200; i++) {
      native.revoke(new DataView(native.mapFile(fd, 0, 2 ** 36, true)));
      peak = Math.max(peak, size() - start);
      if (native.reclaim()) runs += 1;
    }
    parentPort.postMessage({ idle, runs, peak });`)) as {
      idle: boolean;
      runs: number;
      peak: number;
    };
    t.equal(result.idle, false);
    t.equal(result.runs, 12, 'once a TiB');
    t.ok(result.peak < 4096, `address space stays bounded: ${result.peak} GiB of ${200 * 64}`);
  },
);

t.test('external memory of V8 is not charged for mappings', async (t) => {
  const fd = native.memfdCreate('free', 2 ** 36);
  const before = process.memoryUsage();
  const buffer = native.mapFile(fd, 0, 2 ** 36, true);
  const after = process.memoryUsage();
  closeSync(fd);
  t.equal(buffer.byteLength, 2 ** 36);
  t.ok(after.external - before.external < 2 ** 20);
});
