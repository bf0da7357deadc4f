/** What can follow on a command line, from the commander program itself: subcommands, options, their choices, RPC methods and keys. */
import type { Argument, Command, Option } from 'commander';
import { discover, flatParams, methodNames } from '../rpc/methods.ts';

export interface Candidate {
  readonly value: string;
  readonly description: string;
}

export interface Completion {
  readonly candidates: readonly Candidate[];
  /** What the shell adds: names of files, or nothing; `nospace`: more is to follow the word. */
  readonly after: 'files' | 'nospace' | 'none';
}

/** A target that does not answer soon has no methods: somebody waits with a finger on the key. */
const TARGET_TIMEOUT_MS = 500;
/** Arguments, and values of options, that are named so are paths. */
const PATHS = /path|file|folder|socket|image/i;

const NOTHING: Completion = { candidates: [], after: 'none' };

/** `words`: those after the program's name, the last being the one to complete, which may be empty. */
export async function complete(program: Command, words: readonly string[]): Promise<Completion> {
  const joined = joinEquals(words);
  const current = joined.at(-1) ?? '';
  const line = parse(program, joined.slice(0, -1));
  const found = await candidates(line, current);
  return {
    ...found,
    // A key is complete with its `=`.
    candidates: found.candidates.filter(
      ({ value }) => value.startsWith(current) && !(value === current && value.endsWith('=')),
    ),
  };
}

/** What the words before the current one are. */
interface Line {
  readonly command: Command;
  readonly positional: readonly string[];
  /** Values of options, by long name. */
  readonly options: ReadonlyMap<string, string>;
  /** The option whose value comes next. */
  readonly pending: Option | undefined;
  /** After `--` there are no options. */
  readonly literal: boolean;
}

/** bash takes `=` for a word of its own: `--socket = x` is an option and its value, `name = x` one word. */
function joinEquals(words: readonly string[]): string[] {
  const joined: string[] = [];
  for (let i = 0; i < words.length; i += 1) {
    const before = joined.at(-1);
    const last = i === words.length - 1;
    if (words[i] === '=' && before?.startsWith('--')) {
      // What follows is the option's value: bash replaces only that.
      if (last) {
        joined.push('');
      }
    } else if (words[i] === '=' && before !== undefined) {
      joined[joined.length - 1] = `${before}=${words[i + 1] ?? ''}`;
      i += 1;
    } else {
      joined.push(words[i]);
    }
  }
  return joined;
}

function parse(program: Command, words: readonly string[]): Line {
  let command = program;
  let positional: string[] = [];
  let options = new Map<string, string>();
  let pending: Option | undefined;
  let literal = false;
  for (const word of words) {
    if (pending !== undefined) {
      options.set(pending.long ?? '', word);
      pending = undefined;
    } else if (word === '--' && !literal) {
      literal = true;
    } else if (word.startsWith('-') && word.length > 1 && !literal) {
      const [name, value] = word.split('=', 2);
      const option = command.options.find(({ long, short }) => long === name || short === name);
      if (option?.required && value === undefined) {
        pending = option;
      } else if (option?.long != null) {
        options.set(option.long, value ?? '');
      }
    } else {
      const sub = command.commands.find((sub) => sub.name() === word);
      if (sub !== undefined && positional.length === 0) {
        command = sub;
        positional = [];
        options = new Map();
      } else {
        positional.push(word);
      }
    }
  }
  return { command, positional, options, pending, literal };
}

async function candidates(line: Line, current: string): Promise<Completion> {
  const { command, pending, literal, positional } = line;
  if (pending !== undefined) {
    return valueCandidates(pending);
  }
  if (current.startsWith('-') && !literal) {
    const [name, value] = current.split('=', 2);
    const option = command.options.find(({ long }) => long === name);
    if (value !== undefined && option !== undefined) {
      const { candidates, after } = valueCandidates(option);
      return {
        candidates: candidates.map((one) => ({ ...one, value: `${name}=${one.value}` })),
        after,
      };
    }
    return { candidates: optionsOf(line), after: 'none' };
  }
  const helped = positional.length === 1 && positional[0] === 'help';
  if (command.commands.length > 0 && (positional.length === 0 || helped)) {
    const shown = command.createHelp().visibleCommands(command);
    return {
      candidates: shown.map((sub) => ({ value: sub.name(), description: sub.description() })),
      after: 'none',
    };
  }
  const args = command.registeredArguments;
  const last = args.at(-1);
  const argument = args[positional.length] ?? (last?.variadic ? last : undefined);
  return argument === undefined ? NOTHING : argumentOf(argument, line);
}

function valueCandidates({ argChoices, flags }: Option): Completion {
  if (argChoices !== undefined) {
    return { candidates: plain(argChoices), after: 'none' };
  }
  return PATHS.test(/<.*>/.exec(flags)?.[0] ?? '') ? { candidates: [], after: 'files' } : NOTHING;
}

/** Options that are not given yet, or may be given again. */
function optionsOf({ command, options }: Line): Candidate[] {
  return command
    .createHelp()
    .visibleOptions(command)
    .filter(({ long }) => long != null)
    .filter((option) => !options.has(option.long ?? '') || Array.isArray(option.defaultValue))
    .map(({ long, description }) => ({ value: long ?? '', description }));
}

async function argumentOf(argument: Argument, line: Line): Promise<Completion> {
  if (argument.argChoices !== undefined) {
    return { candidates: plain(argument.argChoices), after: 'none' };
  }
  const isRpc = line.command.name() === 'rpc';
  if (isRpc && argument.name() === 'method') {
    return { candidates: await methods(line), after: 'none' };
  }
  if (isRpc && argument.name() === 'params') {
    return { candidates: await keys(line), after: 'nospace' };
  }
  return PATHS.test(argument.name()) ? { candidates: [], after: 'files' } : NOTHING;
}

const plain = (values: readonly string[]): Candidate[] =>
  values.map((value) => ({ value, description: '' }));

function socketOf({ command, options }: Line): string {
  const option = command.options.find(({ long }) => long === '--socket');
  return options.get('--socket') ?? String(option?.defaultValue);
}

/** The methods of the target that runs, if one does. */
async function methods(line: Line): Promise<Candidate[]> {
  const socket = socketOf(line);
  try {
    const docs = await discover(socket, TARGET_TIMEOUT_MS);
    return docs === undefined
      ? plain(await methodNames(socket, TARGET_TIMEOUT_MS))
      : docs.map(({ name, summary }) => ({ value: name, description: summary }));
  } catch {
    return [];
  }
}

/** Keys of the method's parameters that are not given yet. */
async function keys(line: Line): Promise<Candidate[]> {
  try {
    const docs = await discover(socketOf(line), TARGET_TIMEOUT_MS);
    const doc = docs?.find(({ name }) => name === line.positional[0]);
    const given = new Set(line.positional.slice(1).map((word) => word.split('=', 1)[0]));
    return (doc === undefined ? [] : flatParams(doc))
      .filter(({ name }) => !given.has(name))
      .map(({ name, description }) => ({ value: `${name}=`, description }));
  } catch {
    return [];
  }
}

/** As the shells' scripts read it: a candidate a line, a tab before its description; the last line says what the shell adds. */
export function formatCompletion({ candidates, after }: Completion): string {
  const lines = candidates.map(({ value, description }) => `${value}\t${oneLine(description)}`);
  return `${[...lines, `:${after}`].join('\n')}\n`;
}

const oneLine = (text: string): string => text.replace(/[^\x20-\x7e\u00a0-\uffff]+/g, ' ');
