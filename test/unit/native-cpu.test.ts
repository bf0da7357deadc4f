/** The addon's calls on its own thread: processors, id, name, timer slack; and the clock. */
import { readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import t from 'tap';
import { native } from '../../src/native/index.ts';

const addon = new URL('../../src/native/index.js', import.meta.url).href;

t.test('a worker binds itself, and only itself', async (t) => {
  const mine = native.getAffinity();
  t.ok(mine.length > 0);
  const worker = new Worker(
    `const { parentPort } = require('node:worker_threads');
     const { readFileSync } = require('node:fs');
     import(${JSON.stringify(addon)}).then(({ native }) => {
       native.setAffinity([${mine.at(-1)}]);
       native.setThreadName('reactor-name-15');
       native.setTimerSlack(1000);
       const tid = native.getTid();
       const task = '/proc/self/task/' + tid;
       parentPort.postMessage({
         tid,
         affinity: native.getAffinity(),
         name: readFileSync(task + '/comm', 'utf8').trim(),
         slack: readFileSync('/proc/' + tid + '/timerslack_ns', 'utf8').trim(),
       });
     });`,
    { eval: true },
  );
  const result = await new Promise<{
    tid: number;
    affinity: number[];
    name: string;
    slack: string;
  }>((resolve) => worker.once('message', resolve));
  t.same(result.affinity, [mine.at(-1)]);
  t.equal(result.name, 'reactor-name-15');
  t.equal(result.slack, '1000');
  t.not(result.tid, native.getTid());
  t.equal(native.getTid(), process.pid, 'the main thread has the id of the process');
  t.same(native.getAffinity(), mine);
});

t.test('all processors may be given back', async (t) => {
  const all = native.getAffinity();
  native.setAffinity(all.slice(0, 1));
  t.same(native.getAffinity(), all.slice(0, 1));
  native.setAffinity(all);
  t.same(native.getAffinity(), all);
});

t.test('arguments are checked', async (t) => {
  const range = { code: 'ERR_OUT_OF_RANGE' };
  t.throws(() => native.setAffinity([]), range);
  t.throws(() => native.setAffinity([-1]), range);
  t.throws(() => native.setAffinity([8192]), range);
  t.throws(() => native.setAffinity([0.5]), range);
  t.throws(() => native.setAffinity(['0' as unknown as number]), { code: 'ERR_INVALID_ARG_TYPE' });
  t.throws(() => native.setAffinity(new Array<number>(1)), { code: 'ERR_INVALID_ARG_TYPE' });
  t.throws(() => native.setAffinity(0 as unknown as number[]), { code: 'ERR_INVALID_ARG_TYPE' });
  t.throws(() => native.setAffinity([8191]), {
    code: 'EINVAL',
    errno: 22,
    syscall: 'sched_setaffinity',
  });
  t.throws(() => native.setThreadName('sixteen bytes ok'), range);
  t.throws(() => native.setThreadName('ééééééé€'), range, 'bytes, not characters');
  t.throws(() => native.setTimerSlack(0), range);
  t.throws(() => native.setTimerSlack(-5), range);
});

t.test('the clock is CLOCK_MONOTONIC in nanoseconds', async (t) => {
  const before = Number(process.hrtime.bigint());
  const now = native.clock();
  const after = Number(process.hrtime.bigint());
  t.ok(before <= now && now <= after);
  const uptime = Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]) * 1e9;
  t.ok(uptime + 1e9 >= now, 'not more than the time since boot');
});

t.test('bound clocks write into shared memory', async (t) => {
  const times = new Float64Array(new SharedArrayBuffer(16));
  const readClock = native.bindClock(times);
  const readThreadClock = native.bindThreadClock(times);
  const before = native.clock();
  readClock(1);
  t.ok(before <= times[1] && times[1] <= native.clock());
  readThreadClock(0);
  const used = times[0];
  t.ok(used > 0 && used < times[1]);
  while (native.clock() - before < 2e6);
  readThreadClock(0);
  t.ok(times[0] > used, 'it advances while the thread works');
  t.throws(() => readClock(2), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => readClock(-1), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => native.bindClock(new Float64Array(2)), { code: 'ERR_INVALID_ARG_TYPE' });
  t.throws(() => native.bindClock([0] as unknown as Float64Array), {
    code: 'ERR_INVALID_ARG_TYPE',
  });
});
