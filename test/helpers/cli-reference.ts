/**
 * The reference of the commands in docs/cli.md, made of the help texts. `node dist/test/helpers/cli-reference.js` writes it; a test compares.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { createProgram } from '../../src/cli/program.ts';

/** From dist/test/helpers. */
export const CLI_REFERENCE_PATH = fileURLToPath(new URL('../../../docs/cli.md', import.meta.url));
const BEGIN = '<!-- made from the program: begin -->';
const END = '<!-- made from the program: end -->';
const WIDTH = 110;

/** The help of a command, as a terminal shows it. */
function helpOf(command: Command): string {
  let text = '';
  command.configureOutput({
    getOutHelpWidth: () => WIDTH,
    getOutHasColors: () => false,
    writeOut: (part) => {
      text += part;
    },
  });
  command.outputHelp();
  return text.trimEnd();
}

function sections(command: Command, path: readonly string[]): string[] {
  const section = ['##'.padEnd(path.length + 1, '#'), ` ${path.join(' ')}`].join('');
  const subcommands = command.createHelp().visibleCommands(command);
  return [
    [section, '', '```text', helpOf(command), '```', ''].join('\n'),
    ...subcommands
      .filter((sub) => sub.name() !== 'help')
      .flatMap((sub) => sections(sub, [...path, sub.name()])),
  ];
}

/** The text of docs/cli.md with its reference renewed. */
export function renewCliReference(text: string): string {
  const reference = sections(createProgram(), ['doorbell']).join('\n');
  const [before, rest] = text.split(BEGIN);
  const [, after] = rest.split(END);
  return `${before}${BEGIN}\n\n${reference}\n${END}${after}`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(CLI_REFERENCE_PATH, renewCliReference(readFileSync(CLI_REFERENCE_PATH, 'utf8')));
}
