/** The watchdog: who hangs is named, and who answered in time is not, even if main was late to look. */
import { MessageChannel } from 'node:worker_threads';
import t from 'tap';
import { Watchdog } from '../../src/app/watchdog.ts';
import { createLogger } from '../../src/util/log.ts';

function start(t: { teardown(fn: () => unknown): void }, answers: (reactor: number) => boolean) {
  const lines: Record<string, unknown>[] = [];
  const sink = (line: string): boolean => lines.push(JSON.parse(line)) > 0;
  const { log } = createLogger({ level: 'info', format: 'json', sink });
  const { port1, port2 } = new MessageChannel();
  const waiting: (() => void)[] = [];
  port1.on('message', () => waiting.shift()?.());
  let tellAlive = (): void => {};
  const alive = new Promise<void>((resolve) => {
    tellAlive = resolve;
  });
  const watchdog = new Watchdog({
    timeoutMs: 40,
    reactors: 2,
    // The answer comes as a message, as a reactor's does.
    pulse: (reactor) =>
      new Promise((resolve) => {
        if (answers(reactor)) {
          waiting.push(resolve);
          port2.postMessage(undefined);
        }
      }),
    alive: tellAlive,
    log,
  });
  t.teardown(() => {
    watchdog.stop();
    port1.close();
  });
  return { lines, alive };
}

t.test('main had no processor for long', async (t) => {
  const { lines, alive } = start(t, () => true);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
  await alive;
  await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
  t.strictSame(lines, []);
});

t.test('a reactor that hangs', async (t) => {
  const { lines } = start(t, (reactor) => reactor === 0);
  while (lines.length === 0) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  t.match(lines, [{ level: 50, reactors: [1], msg: /reactors hang/ }]);
});
