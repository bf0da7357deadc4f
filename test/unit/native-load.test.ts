/** Loading the addon: where it cannot work it says so, and says what to do. */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { native } from '../../src/native/index.ts';

const addon = fileURLToPath(new URL('../../src/native/index.js', import.meta.url));

function node(script: string) {
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    timeout: 60_000,
  });
  return { status: child.status, output: child.stdout.toString() + child.stderr.toString() };
}

t.test('it is loaded once a thread, whoever imports it', async (t) => {
  t.equal((await import('../../src/native/index.ts')).native, native);
});

t.test('a build with a V8 that forbids mapped buffers is refused', async (t) => {
  const load = `await import(${JSON.stringify(`file://${addon}`)});`;
  const electron = node(
    `Object.defineProperty(process.versions, 'electron', { value: '30.0.0' }); ${load}`,
  );
  t.equal(electron.status, 1);
  t.match(electron.output, /doorbell does not run under Electron/);
  const sandbox = node(
    `Object.defineProperty(process, 'config', { value: { variables: { v8_enable_sandbox: 1 } } }); ${load}`,
  );
  t.equal(sandbox.status, 1);
  t.match(sandbox.output, /V8 sandbox/);
});

t.test('a missing or foreign build tells how to make one', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'doorbell-'));
  t.teardown(() => rmSync(root, { recursive: true }));
  mkdirSync(join(root, 'dist/src/native'), { recursive: true });
  writeFileSync(join(root, 'package.json'), '{"type":"module"}');
  cpSync(addon, join(root, 'dist/src/native/index.js'));
  const load = () =>
    node(`await import(${JSON.stringify(`file://${root}/dist/src/native/index.js`)});`);
  const missing = load();
  t.equal(missing.status, 1);
  t.match(missing.output, /not built: run `npm run build`/);
  mkdirSync(join(root, 'build/Release'), { recursive: true });
  writeFileSync(join(root, 'build/Release/doorbell.node'), 'not a shared object');
  const foreign = load();
  t.equal(foreign.status, 1);
  t.match(foreign.output, /does not fit this Node.js: run `npm run build`/);
});
