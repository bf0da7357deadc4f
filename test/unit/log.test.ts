/** The log: who may write what, how much of it, and in which form. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import t from 'tap';
import {
  COMPONENTS,
  componentLogger,
  createLogger,
  type LoggerOptions,
  peerLogger,
} from '../../src/util/log.ts';
import { RateLimit } from '../../src/util/log-limit.ts';
import { withPriority } from '../../src/util/log-sink.ts';
import { formatLine } from '../../src/util/log-text.ts';

/** A logger whose lines are kept. */
function kept(options: Partial<LoggerOptions> = {}) {
  const lines: string[] = [];
  const sink = (line: string): boolean => {
    lines.push(line);
    return true;
  };
  const logger = createLogger({ level: 'info', format: 'json', sink, ...options });
  return { ...logger, lines, messages: () => lines.map((line) => JSON.parse(line).msg as string) };
}

t.test('the level holds for every logger there is, from the moment it changes', async (t) => {
  const { log, control, messages } = kept();
  const child = componentLogger(log, 'nvme').child({ cntlid: 1 });
  log.debug('a');
  child.debug('b');
  control.level = 'debug';
  child.debug('c');
  control.level = 'error';
  child.warn('d');
  child.error('e');
  control.level = 'silent';
  child.fatal('f');
  t.strictSame(messages(), ['c', 'e']);
});

t.test('a flag lets the debug lines of one component through', async (t) => {
  const { log, control, messages } = kept({ level: 'error' });
  const nvme = componentLogger(log, 'nvme');
  const rpc = componentLogger(log, 'rpc');
  control.setFlag('nvme', true);
  nvme.child({}).debug('a');
  nvme.trace('b');
  rpc.debug('c');
  log.info('d');
  control.setFlag('nvme', false);
  nvme.debug('e');
  control.setFlag('app', true);
  log.debug('f');
  t.strictSame(messages(), ['a', 'f']);
  t.strictSame(Object.keys(control.flags), [...COMPONENTS]);
  t.strictSame(
    Object.entries(control.flags).filter(([, set]) => set),
    [['app', true]],
  );
});

t.test('timestamps can be left out', async (t) => {
  const { log, control, lines } = kept();
  log.info('with');
  control.timestamps = false;
  log.info('without');
  t.type(JSON.parse(lines[0]).time, 'number');
  t.notOk('time' in JSON.parse(lines[1]));
  t.equal(formatLine(lines[1]), 'info  without\n');
});

t.test('a peer can make only so many lines', async (t) => {
  const { log, messages } = kept({ level: 'debug' });
  const peer = peerLogger(log, 'vfio-user', { socket: '/a' });
  const other = peerLogger(log, 'vfio-user', { socket: '/b' });
  for (let i = 0; i < 5000; i++) {
    peer.child({ i }).warn('noise');
    peer.debug('small noise');
  }
  other.warn('of another');
  const count = (text: string) => messages().filter((message) => message === text).length;
  t.equal(count('noise'), 20);
  t.equal(count('small noise'), 2000, 'debug lines have a bound of their own');
  t.equal(count('of another'), 1);
});

t.test('a limit says what it held back', async (t) => {
  const told: [number, number][] = [];
  const limit = new RateLimit(2, 1000, (suppressed, ms) => told.push([suppressed, ms]));
  t.strictSame(
    [0, 1, 2, 3, 999].map((now) => limit.take(now)),
    [true, true, false, false, false],
  );
  t.strictSame(told, []);
  t.equal(limit.take(1000), true, 'a new window');
  t.strictSame(told, [[3, 1000]], 'told before the next line');
  t.equal(limit.take(1001), true);
  t.equal(limit.take(5000), true);
  t.strictSame(told, [[3, 1000]], 'nothing was held back');

  const soon = await new Promise<number>((resolve) => {
    const brief = new RateLimit(1, 20, resolve);
    brief.take();
    brief.take();
    brief.take();
    // The limit's own timer keeps no process alive.
    setTimeout(() => {}, 10_000).unref();
    const alive = setInterval(() => {}, 5);
    t.teardown(() => clearInterval(alive));
  });
  t.equal(soon, 2, 'told at the end of the window, though no line came');
});

t.test('lines for people', async (t) => {
  const line = JSON.stringify({
    level: 30,
    time: Date.UTC(2026, 0, 1, 12, 34, 56, 789),
    pid: 1,
    hostname: 'h',
    msg: 'bdev created',
    component: 'bdev',
    bdev: 'a b\nc',
    blocks: 8,
    path: '/x/y',
  });
  t.equal(
    formatLine(line),
    '12:34:56.789 info  bdev: bdev created bdev="a b\\nc" blocks=8 path=/x/y\n',
  );
  const error = JSON.stringify({ level: 50, time: 0, msg: 'm', err: { stack: 'Error: x\n  at' } });
  t.match(formatLine(error), /error m\n {4}Error: x\n {6}at\n$/);
});

t.test('nothing that a peer chose ends a line or steers a terminal', async (t) => {
  const nasty = fc.string({
    unit: fc.constantFrom('a', '\n', '\r', '\u001b', '\u009b', '\u2028', '\u202e', '"', '\\', '\0'),
    maxLength: 20,
  });
  fc.assert(
    fc.property(nasty, (text) => {
      const { log, lines } = kept();
      log.warn({ name: text, err: new Error(text) }, text);
      t.equal(lines.length, 1);
      t.equal(lines[0].split('\n').length, 2, 'one JSON line');
      const shown = formatLine(lines[0]);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what it is about
      t.notMatch(shown, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u2028\u202e]/);
      const [first, ...rest] = shown.trimEnd().split('\n');
      t.match(first, /^\d\d:\d\d:\d\d\.\d{3} warn /);
      t.ok(rest.every((row) => row.startsWith('    ')));
    }),
    { numRuns: 50 },
  );
});

t.test('an error in a line has a bounded size', async (t) => {
  const { log, lines } = kept();
  log.error({ err: new Error('x'.repeat(1_000_000)) }, 'large');
  t.ok(lines[0].length < 10_000);
});

t.test('the journal gets priorities', async (t) => {
  t.equal(withPriority('a\n    b\n', 50), '<3>a\n<3>    b\n');
  t.equal(withPriority('a\n', 30), '<6>a\n');
  t.equal(withPriority('a\n', 60), '<2>a\n');
});

t.test('lines that the sink lost are counted', async (t) => {
  let full = true;
  const lines: string[] = [];
  const sink = (line: string): boolean => {
    if (!full) lines.push(line);
    return !full;
  };
  const { log } = createLogger({ level: 'info', format: 'json', sink });
  log.info('a');
  log.info('b');
  full = false;
  log.info('c');
  log.info('d');
  t.strictSame(
    lines.map((line) => JSON.parse(line)).map(({ msg, lost }) => lost ?? msg),
    ['c', 2, 'd'],
  );
});

t.test('stderr that takes nothing does not hold the process up, or end it', async (t) => {
  const log = fileURLToPath(new URL('../../src/util/log.js', import.meta.url));
  const code = `
    const { createLogger } = await import(${JSON.stringify(log)});
    const { log } = createLogger({ level: 'info', format: 'json' });
    for (let i = 0; i < 5000; i++) log.info({ i, filler: 'x'.repeat(100) }, 'line');
    console.log('done');`;
  const script = ['--input-type=module', '-e', code];
  const full = openSync('/dev/full', 'w');
  t.teardown(() => closeSync(full));
  const onFull = spawnSync(process.execPath, script, {
    stdio: ['ignore', 'pipe', full],
    encoding: 'utf8',
  });
  t.match(onFull, { status: 0, stdout: 'done\n' }, 'a full disk');

  /** `stderr` is done with as told, and otherwise not read: a pipe takes 64 KiB. */
  const run = async (treat: (stderr: Readable) => void): Promise<[string, number | null]> => {
    const child = spawn(process.execPath, script, { stdio: ['ignore', 'pipe', 'pipe'] });
    treat(child.stderr);
    let stdout = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    const [status] = await once(child, 'exit');
    child.stderr.destroy();
    return [stdout, status];
  };
  t.strictSame(await run(() => {}), ['done\n', 0], 'a reader that sleeps');
  t.strictSame(await run((stderr) => stderr.destroy()), ['done\n', 0], 'a reader that is gone');
});
