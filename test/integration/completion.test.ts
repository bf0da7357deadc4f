/** Completion in real shells: each sources the script that `doorbell completion` prints, and is asked. */
import { execFile, spawnSync } from 'node:child_process';
import { chmodSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { canPty, Pty } from '../helpers/pty.ts';
import { shortFolder, startRpcTarget } from '../helpers/rpc.ts';
import { doorbell } from '../helpers/rpc-process.ts';

const CLI = fileURLToPath(new URL('../../src/cli/doorbell.js', import.meta.url));
const has = (shell: string) => spawnSync(shell, ['-c', 'true']).status === 0;

/** A folder with `doorbell` in it, and an environment that finds it. */
function install(t: Test): { folder: string; env: NodeJS.ProcessEnv } {
  const folder = shortFolder(t);
  const path = join(folder, 'doorbell');
  writeFileSync(path, `#!/bin/sh\nexec '${process.execPath}' '${CLI}' "$@"\n`);
  chmodSync(path, 0o755);
  return {
    folder,
    env: { ...process.env, HOME: folder, PATH: `${folder}${delimiter}${process.env.PATH}` },
  };
}

function run(shell: string, args: string[], env: NodeJS.ProcessEnv): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(shell, args, { env, cwd: env.HOME }, (error, stdout, stderr) => {
      if (error !== null || stderr !== '') {
        reject(error ?? new Error(stderr));
      } else {
        resolve(stdout.trim());
      }
    });
  });
}

t.test('what can follow', async (t) => {
  const { path } = await startRpcTarget(t);
  const complete = async (...words: string[]) => {
    const { stdout } = await doorbell(['__complete', '--', ...words]);
    const lines = stdout.trimEnd().split('\n');
    return {
      values: lines.slice(0, -1).map((line) => line.split('\t')[0]),
      after: lines.at(-1),
    };
  };
  const commands = await complete('');
  t.match(commands.values, ['serve', 'rpc']);
  t.notOk(commands.values.includes('__complete'), 'hidden');
  t.strictSame((await complete('help', 'iden')).values, ['identify']);
  t.ok((await complete('serve', '--')).values.includes('--log-level'));
  t.strictSame(await complete('serve', '--log-level', 'w'), { values: ['warn'], after: ':none' });
  t.strictSame((await complete('serve', '--log-level=w')).values, ['--log-level=warn']);
  t.strictSame((await complete('serve', '--log-level', '=', 'w')).values, ['warn'], 'as bash');
  t.ok((await complete('serve', '--log-level', '=')).values.includes('silent'), 'as bash');
  t.strictSame((await complete('config', 'c')).values, ['check', 'convert']);
  t.strictSame(await complete('config', 'check', 'a', ''), { values: [], after: ':files' });
  t.strictSame((await complete('config', 'convert', '--to', 's')).values, ['short', 'spdk']);
  t.strictSame(await complete('config', 'convert', 'a', '-o', ''), { values: [], after: ':files' });
  t.strictSame(await complete('serve', '-d', ''), { values: [], after: ':files' });
  t.strictSame(await complete('serve', '--disk-size', ''), { values: [], after: ':none' });
  t.ok((await complete('serve', '-d', 'a', '--di')).values.includes('--disk'), 'again');
  t.notOk((await complete('serve', '--readonly', '--re')).values.includes('--readonly'), 'once');
  t.strictSame(await complete('identify', '/x'), { values: [], after: ':files' });
  t.strictSame(await complete('identify', 'a', ''), { values: [], after: ':none' });
  const methods = await complete('rpc', '-s', path, 'bdev_null_c');
  t.strictSame(methods.values, ['bdev_null_create']);
  t.strictSame((await complete('rpc', '--socket', '=', path, 'framework_wait')).values, [
    'framework_wait_init',
  ]);
  t.strictSame(await complete('rpc', '-s', '/nonexistent', ''), { values: [], after: ':none' });
});

t.test('bash', { skip: has('bash') ? false : 'no bash' }, async (t) => {
  const { env } = install(t);
  const { path } = await startRpcTarget(t);
  const complete = (...words: string[]) => {
    const quoted = words.map((word) => `'${word}'`).join(' ');
    const script = `eval "$(doorbell completion bash)"
      complete -p doorbell >/dev/null || exit 1
      COMP_WORDS=(doorbell ${quoted}); COMP_CWORD=${words.length}; _doorbell
      printf '%s\\n' "\${COMPREPLY[@]}"`;
    return run('bash', ['--norc', '-c', script], env);
  };
  t.equal(await complete('ident'), 'identify');
  t.equal(await complete('serve', '--log-level', '=', 'tr'), 'trace');
  t.equal(await complete('identify', 'door'), 'doorbell', 'a file');
  t.equal(await complete('rpc', '-s', path, 'framework_wait'), 'framework_wait_init');
});

t.test('fish', { skip: has('fish') ? false : 'no fish' }, async (t) => {
  const { env } = install(t);
  const { path } = await startRpcTarget(t);
  const complete = (line: string) =>
    run(
      'fish',
      ['--no-config', '-c', `doorbell completion fish | source; complete -C '${line}'`],
      env,
    );
  t.match(await complete('doorbell ident'), /^identify\tPrint what/);
  t.equal(await complete('doorbell serve --log-level tr'), 'trace');
  t.match(await complete('doorbell identify door'), /^doorbell\b/);
  t.match(await complete(`doorbell rpc -s ${path} framework_wait`), /^framework_wait_init/);
});

t.test('zsh', { skip: has('zsh') && canPty ? false : 'no zsh, or no script(1)' }, async (t) => {
  const { env } = install(t);
  const { path } = await startRpcTarget(t);
  const pty = new Pty(t, 'zsh -f', {}, env);
  // It takes pasted text, so it takes keys.
  await pty.shown(/2004h/);
  pty.type('autoload -U compinit; compinit -u; source <(doorbell completion zsh); echo rea""dy\n');
  await pty.shown(/ready\r/);
  pty.type('doorbell ident\t');
  await pty.shown(/identify/);
  pty.type('\x15doorbell serve --log-level tr\t');
  await pty.shown(/trace/);
  pty.type(`\x15doorbell rpc -s ${path} framework_wait\t`);
  await pty.shown(/framework_wait_init/);
  pty.type('\x15exit\n');
  await pty.outcome;
});

t.test('no such shell', async (t) => {
  t.match(await doorbell(['completion', 'tcsh']), { code: 2, stderr: /bash, zsh, fish/ });
});
