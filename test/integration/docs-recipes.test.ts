/** Recipes of the documents, run as they stand there: only folders are others. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { banner } from '../../src/app/banner.ts';
import { parseMarkdown } from '../helpers/markdown.ts';
import { TargetProcess } from '../helpers/target-process.ts';

/** From dist/test/integration. */
const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const COMMAND = fileURLToPath(new URL('../../src/cli/doorbell.js', import.meta.url));

/** The shell blocks of a document that hold a text, in their order. */
function recipes(document: string, text: string): string {
  const { fences } = parseMarkdown(readFileSync(join(ROOT, document), 'utf8'));
  const found = fences.filter((fence) => fence.language === 'sh' && fence.text.includes(text));
  return found.map((fence) => fence.text).join('\n');
}

for (const { document, text, shows } of [
  { document: 'docs/rpc.md', text: 'bdev_aio_create', shows: /\/run\/vm0/ },
  { document: 'docs/faults.md', text: 'bdev_', shows: /"EE_ram2"/ },
  { document: 'docs/guides/qemu.md', text: 'nvmf_create_transport', shows: /\/run\/doorbell\/vm1/ },
]) {
  t.test(`${document}: ${text}`, async (t) => {
    const target = new TargetProcess(t);
    await target.start();
    const { folder } = target;
    for (const made of ['srv', 'run', 'state']) {
      mkdirSync(join(folder, made));
    }
    const script = recipes(document, text)
      // The target runs already.
      .replace(/^(?:npx )?doorbell serve .*&$/gm, '')
      .replaceAll(/(?<![\w.])\/(srv|run)\//g, `${folder}/$1/`);
    await run(t, target, script);
    t.match(JSON.stringify(await target.call('doorbell_get_snapshot')), shows);
  });
}

t.test('what a target without disks prints', async (t) => {
  const target = new TargetProcess(t);
  await target.start();
  const text = banner({ rpcSocket: target.rpcPath, disks: [] });
  const script = text.match(/^ {2}.*$/gm)?.join('\n') ?? '';
  t.match(await run(t, target, script), /Doorbell Controller/);
});

/** Runs a script of commands as a shell does that has them in its path. Resolves with what they print. */
async function run(t: Test, { folder }: TargetProcess, script: string): Promise<string> {
  const command = join(folder, 'bin/doorbell');
  mkdirSync(join(folder, 'bin'));
  writeFileSync(command, `#!/bin/sh\nexec "${process.execPath}" "${COMMAND}" "$@"\n`);
  chmodSync(command, 0o755);
  t.match(script, /doorbell rpc/);
  const shell = spawn('bash', ['-euc', script], {
    env: {
      ...process.env,
      PATH: [join(folder, 'bin'), process.env.PATH].join(delimiter),
      DOORBELL_RPC_SOCKET: join(folder, 'rpc.sock'),
    },
  });
  let output = '';
  for (const stream of [shell.stdout, shell.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      output += chunk;
    });
  }
  const [code] = await once(shell, 'close');
  t.equal(code, 0, `${script}\n${output}`);
  return output;
}
