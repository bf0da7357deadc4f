/** A test's processes end with it, even if it is killed. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import t from 'tap';

const TIED = new URL('../helpers/tied.js', import.meta.url).href;
const skip = spawnSync('setpriv', ['--version']).status === 0 ? false : 'no setpriv(1)';

for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
  t.test(signal, { skip }, async (t) => {
    const script = `import { spawnTied } from '${TIED}';
      const child = spawnTied('sh', ['-c', 'echo ready; exec sleep 1000']);
      child.stdout.once('data', () => console.log(child.pid));`;
    const parent = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    t.teardown(() => parent.kill('SIGKILL'));
    const [pid] = await once(createInterface({ input: parent.stdout }), 'line');
    t.ok(existsSync(`/proc/${pid}`));
    parent.kill(signal);
    while (existsSync(`/proc/${pid}`)) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    t.pass('gone');
  });
}
