/** Manual pages made of the help texts: one for the program and one for each command, as man(7) reads them. */
import type { Command } from 'commander';

/** Pages by their names, as `doorbell-disk-create.1`. `version`: of the package. */
export function manPages(program: Command, version: string): ReadonlyMap<string, string> {
  const pages = new Map<string, string>();
  const add = (command: Command, path: readonly string[]): void => {
    pages.set(`${path.join('-')}.1`, page(command, path, version));
    for (const sub of visibleCommands(command)) {
      add(sub, [...path, sub.name()]);
    }
  };
  add(program, [program.name()]);
  return pages;
}

function visibleCommands(command: Command): Command[] {
  return command
    .createHelp()
    .visibleCommands(command)
    .filter((sub) => sub.name() !== 'help');
}

function page(command: Command, path: readonly string[], version: string): string {
  const help = command.createHelp();
  const name = path.join('-');
  const [sentence] = command.description().split(/(?<=[^.]\.)\s/);
  const commands = visibleCommands(command);
  return [
    `.TH ${quoted(name.toUpperCase())} 1 "" ${quoted(`Doorbell ${version}`)} "User Commands"`,
    '.SH NAME',
    `${roff(name)} \\- ${roff(sentence.replace(/\.$/, ''))}`,
    '.SH SYNOPSIS',
    `.B ${roff(help.commandUsage(command))}`,
    '.SH DESCRIPTION',
    roff(help.commandDescription(command)),
    ...list(
      'ARGUMENTS',
      help.visibleArguments(command).map((argument) => ({
        term: help.argumentTerm(argument),
        text: help.argumentDescription(argument),
      })),
    ),
    ...list(
      'OPTIONS',
      help.visibleOptions(command).map((option) => ({
        term: help.optionTerm(option),
        text: help.optionDescription(option),
      })),
    ),
    ...list(
      'COMMANDS',
      commands.map((sub) => ({
        term: `${[...path, sub.name()].join('-')}(1)`,
        text: help.subcommandDescription(sub),
      })),
    ),
    ...verbatim('NOTES', afterHelp(command)),
    '.SH EXIT STATUS',
    roff(EXIT_STATUS),
    ...(path.length > 1 ? ['.SH SEE ALSO', `.BR ${roff(path[0])} (1)`] : []),
    '',
  ].join('\n');
}

const EXIT_STATUS =
  '0: done. 1: it could not be done; a line on stderr says why. 2: the command line is wrong. 3: nobody answers at the socket. ' +
  '128 + n: ended by signal n.';

function list(title: string, items: readonly { term: string; text: string }[]): string[] {
  return items.length === 0
    ? []
    : [
        `.SH ${title}`,
        ...items.flatMap(({ term, text }) => ['.TP', `.B ${roff(term)}`, roff(text)]),
      ];
}

function verbatim(title: string, text: string): string[] {
  return text === '' ? [] : [`.SH ${title}`, '.nf', ...text.split('\n').map(roff), '.fi'];
}

/** What the help has behind what commander itself makes. */
function afterHelp(command: Command): string {
  let text = '';
  command.configureOutput({
    getOutHasColors: () => false,
    writeOut: (part) => {
      text += part;
    },
  });
  command.outputHelp();
  return text.slice(command.helpInformation().length).trim();
}

/** A line of text as man(7) reads it: hyphens are minus signs, nothing at its beginning is a request. */
function roff(text: string): string {
  const escaped = text.replaceAll('\\', '\\e').replaceAll('-', '\\-');
  return /^[.']/.test(escaped) ? `\\&${escaped}` : escaped;
}

function quoted(text: string): string {
  return `"${roff(text)}"`;
}
