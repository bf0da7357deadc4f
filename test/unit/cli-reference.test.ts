/** docs/cli.md has the help texts that there are: `node dist/test/helpers/cli-reference.js` renews it. And what every command has. */
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import t from 'tap';
import { createProgram } from '../../src/cli/program.ts';
import { CLI_REFERENCE_PATH, renewCliReference } from '../helpers/cli-reference.ts';

t.test('docs/cli.md', async (t) => {
  const text = readFileSync(CLI_REFERENCE_PATH, 'utf8');
  t.equal(text, renewCliReference(text));
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
