/** docs/cli.md has the help texts that there are: `node dist/test/helpers/cli-reference.js` renews it. And what every command has. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import t from 'tap';
import { madeFiles } from '../../src/cli/made.ts';
import { createProgram } from '../../src/cli/program.ts';
import { CLI_REFERENCE_PATH, renewCliReference } from '../helpers/cli-reference.ts';

/** From dist/test/unit. */
const ROOT = fileURLToPath(new URL('../../../', import.meta.url));

t.test('docs/cli.md', async (t) => {
  const text = readFileSync(CLI_REFERENCE_PATH, 'utf8');
  t.equal(text, renewCliReference(text));
});

t.test('manual pages and completions are what the program makes of itself', async (t) => {
  const files = madeFiles();
  t.ok(files.has('man/doorbell-disk-create.1') && files.has('completions/doorbell'));
  for (const [path, text] of files) {
    const file = join(ROOT, path);
    t.equal(existsSync(file) ? readFileSync(file, 'utf8') : '', text, `${path}: npm run docs`);
  }
  const there = ['man', 'completions'].flatMap((folder) =>
    readdirSync(join(ROOT, folder)).map((name) => `${folder}/${name}`),
  );
  t.strictSame(there.sort(), [...files.keys()].sort(), 'and no other');
  const { man } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
  t.strictSame(
    man,
    [...files.keys()].filter((path) => path.startsWith('man/')).map((path) => `./${path}`),
  );
  const page = files.get('man/doorbell-serve.1') ?? '';
  t.match(page, /^\.TH "DOORBELL\\-SERVE" 1 /);
  t.match(page, /^\.B \\-\\-state\\-dir <folder>\nkeep the configuration/m);
  for (const line of page.split('\n').filter((text) => /^[.']/.test(text))) {
    t.match(line, /^\.(?:TH|SH|TP|BR?|nf|fi)\b/, 'requests are those that it makes');
  }
});

t.test('every command describes itself and its options', async (t) => {
  const check = (command: Command): void => {
    t.match(command.description(), /\w\.$/, `${command.name()}: a sentence`);
    for (const { flags, description } of command.options) {
      t.match(description, /\w/, `${command.name()} ${flags}`);
    }
    for (const argument of command.registeredArguments) {
      const known = argument.description !== '' || command.name() === '__complete';
      t.ok(known, `${command.name()} ${argument.name()}`);
    }
    command.commands.forEach(check);
  };
  check(createProgram());
});
