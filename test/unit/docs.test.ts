/**
 * What the documents say is there: links lead somewhere, commands have the options that they are shown with, methods the parameters,
 * files exist, configurations are right. Nothing is run. (docs/cli.md and docs/rpc.md are compared with what they are made from in
 * cli-reference.test.ts and rpc-openrpc.test.ts.)
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Command, CommanderError } from 'commander';
import t from 'tap';
import { parse as parseYaml } from 'yaml';
import { compileSources } from '../../src/app/config/load.ts';
import { methodTable } from '../../src/app/config/methods.ts';
import { parseSource } from '../../src/app/config/source.ts';
import { documentedMethods } from '../../src/app/reference.ts';
import { createProgram } from '../../src/cli/program.ts';
import type { MethodDoc } from '../../src/cli/rpc/methods.ts';
import { parseParams } from '../../src/cli/rpc/params.ts';
import { openRpcDocument } from '../../src/rpc/openrpc.ts';
import { type Markdown, parseMarkdown } from '../helpers/markdown.ts';
import { shellCommands } from '../helpers/shell-words.ts';

/** From dist/test/unit. */
const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const at = (path: string): string => join(ROOT, path);

const DOCUMENTS = [
  'README.md',
  'CHANGELOG.md',
  'CONTRIBUTING.md',
  'SECURITY.md',
  'addon/README.md',
  ...readdirSync(at('docs'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => join('docs', name)),
];

const read = (path: string): Markdown => parseMarkdown(readFileSync(path, 'utf8'));
const documents: ReadonlyMap<string, Markdown> = new Map(
  DOCUMENTS.map((name) => [name, read(at(name))]),
);

const { scripts } = JSON.parse(readFileSync(at('package.json'), 'utf8')) as {
  readonly scripts: Readonly<Record<string, string>>;
};

// --- files ----------------------------------------------------------------------------------------------------------

/** What is wrong with a link in a document, or undefined. Other sites are not asked. */
function brokenLink(document: string, target: string): string | undefined {
  if (/^[a-z]+:/.test(target)) {
    return undefined;
  }
  const [path, anchor] = target.split('#');
  const file = path === '' ? at(document) : resolve(dirname(at(document)), path);
  if (!existsSync(file)) {
    return 'no such file';
  }
  const known = anchor === undefined || (file.endsWith('.md') && read(file).anchors.has(anchor));
  return known ? undefined : `no heading for #${anchor}`;
}

/** A path in this repository, perhaps with `*` in its last part; a `*.test.ts` may stand without its folder. */
const REPOSITORY_PATH = /^(?:src|test|bench|config|addon|workers|docs|examples)\/[\w./*-]*$/;
/** What is made at run time. */
const MADE = ['bench/results/'];

function pathExists(path: string): boolean {
  if (!path.includes('*')) {
    return existsSync(at(path));
  }
  const pattern = new RegExp(`^${basename(path).replaceAll('.', '\\.').replaceAll('*', '.*')}$`);
  return readdirSync(at(dirname(path))).some((name) => pattern.test(name));
}

const TEST_FILES = ['unit', 'integration', 'neighbour', 'browser', 'vm'].flatMap((folder) =>
  readdirSync(at(join('test', folder))),
);

function missingPath(span: string): string | undefined {
  if (/^[\w-]+\.test\.ts$/.test(span)) {
    return TEST_FILES.includes(span) ? undefined : span;
  }
  return span
    .split(' ')
    .find((word) => REPOSITORY_PATH.test(word) && !MADE.includes(word) && !pathExists(word));
}

/** The source in a folder, as one text. */
const sourceOf = (folder: string): string =>
  readdirSync(at(folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.(ts|js|mjs|cc|h|sh|yaml|html)$/.test(name))
    .map((name) => readFileSync(at(join(folder, name)), 'utf8'))
    .join('\n');

/** All of our own source, in which names that the documents use have to be found. */
const SOURCE = ['src', 'addon', 'config', 'bench', 'test/vm'].map(sourceOf).join('\n');

/** Names of methods, keys and metrics by their first word. */
const OUR_NAME = /^(?:doorbell|bdev|nvmf|framework|thread|log|rpc)(?:_[a-z0-9]+)+$/;

// --- commands -------------------------------------------------------------------------------------------------------

const methods = methodTable();
const methodDocs: readonly MethodDoc[] = openRpcDocument(documentedMethods(), '0').methods.map(
  ({ name, summary, params }) => ({
    name,
    summary,
    params: params.map((param) => ({ required: false, description: '', ...param })),
  }),
);

/** A command that was parsed: by its words, without `doorbell`. */
interface Parsed {
  readonly command: string;
  readonly args: readonly unknown[];
}

/** Parses as the program does, and calls nothing. Throws what the program would say. */
function parseCommand(words: readonly string[]): Parsed | undefined {
  const program = createProgram();
  let parsed: Parsed | undefined;
  const prepare = (command: Command, path: string): void => {
    command.exitOverride().configureOutput({ writeOut: () => {}, writeErr: () => {} });
    command.action(() => {
      parsed = { command: path, args: command.processedArgs };
    });
    for (const sub of command.commands) {
      prepare(sub, `${path} ${sub.name()}`.trim());
    }
  };
  program.commands.forEach((command) => {
    prepare(command, command.name());
  });
  program.configureOutput({ writeOut: () => {}, writeErr: () => {} });
  try {
    program.parse([...words], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError) || error.exitCode !== 0) {
      throw error;
    }
  }
  return parsed;
}

const MISSING = ['commander.missingArgument', 'commander.optionMissingArgument'];
/** Stands for whatever the reader has. */
const ELLIPSIS = /…|^\.\.\.$/;

/** What is wrong with a call of a method, or undefined. Parameters with an ellipsis are not looked at. */
function wrongCall(name: string, params: unknown): string | undefined {
  if (!methods.names.includes(name)) {
    return `no method ${name}`;
  }
  return JSON.stringify(params ?? {}).includes('…')
    ? undefined
    : methods.violation(name, params ?? {});
}

/** What is wrong with a command of ours or of npm, or undefined; undefined for those of others. `mentioned`: arguments may be left out. */
function wrongCommand(words: readonly string[], mentioned: boolean): string | undefined {
  const [first, ...rest] = words;
  if (first === 'npm') {
    return wrongScript(rest[0] === 'run' ? rest.slice(1) : rest);
  }
  if (first === 'npx' || first === 'sudo') {
    return wrongCommand(rest, mentioned);
  }
  // systemd-socket-activate -l /run/vm0/cntrl doorbell serve
  const ours = words.indexOf('doorbell');
  if (first === 'node' && rest[0] === 'dist/src/cli/doorbell.js') {
    return wrongCommand(['doorbell', ...rest.slice(1)], mentioned);
  }
  if (ours < 0 || (ours > 0 && first !== 'systemd-socket-activate')) {
    return undefined;
  }
  const own = words.slice(ours + 1).filter((word) => !ELLIPSIS.test(word));
  if (own.length === 0) {
    return undefined;
  }
  const elided = mentioned || own.length < words.length - ours - 1;
  try {
    const parsed = parseCommand(own);
    if (parsed?.command !== 'rpc' || parsed.args[0] === undefined || parsed.args[0] === 'METHOD') {
      return undefined;
    }
    const [name, values] = parsed.args as [string, string[]];
    const doc = methodDocs.find((method) => method.name === name);
    return wrongCall(name, elided ? '…' : parseParams(values, doc));
  } catch (error) {
    const missing = error instanceof CommanderError && MISSING.includes(error.code);
    return missing && elided ? undefined : (error as Error).message;
  }
}

/** The same of `npm run` with these words behind it: a script, and perhaps options behind `--`. */
function wrongScript([name, ...rest]: readonly string[]): string | undefined {
  if (name === undefined || ['ci', 'install', 'pack', 'root'].includes(name)) {
    return undefined;
  }
  const script = scripts[name];
  if (script === undefined) {
    return `no script ${name}`;
  }
  const added = rest[0] === '--' ? rest.slice(1) : [];
  if (name === 'start') {
    return wrongCommand([...script.split(' '), ...added], false);
  }
  return added.find((word) => word.startsWith('--') && !OPTIONS.has(word));
}

function wrongShell(text: string, mentioned = false): string[] {
  return shellCommands(text).flatMap((words) => {
    const wrong = wrongCommand(words, mentioned);
    return wrong === undefined ? [] : [`${words.join(' ')}: ${wrong}`];
  });
}

/** Every option of every command of ours, and of the scripts of `bench/`. */
const OPTIONS = new Set<string>();
const collect = (command: Command): void => {
  for (const { long } of [...command.options, ...command.createHelp().visibleOptions(command)]) {
    OPTIONS.add(long ?? '');
  }
  command.commands.forEach(collect);
};
collect(createProgram());
for (const name of readdirSync(at('bench')).filter((file) => file.endsWith('.ts'))) {
  for (const [, option] of readFileSync(at(join('bench', name)), 'utf8').matchAll(
    /^\s+'?([a-z][a-z-]*)'?: \{ type: '(?:string|boolean)'/gm,
  )) {
    OPTIONS.add(`--${option}`);
  }
}
/** Of other programs: Cloud Hypervisor, QEMU, SPDK's rpc.py, Linux, npm. */
const FOREIGN = [
  '--build-from-source',
  '--memory',
  '--shared',
  ...['--kernel', 'docs/interop/vfio-user.rst'],
  ...['bdev_error_resume_pending', '--server'],
  ...['bdev_get_histogram_borders', 'bdev_set_qd_sampling_period', 'thread_set_cpumask'],
  ...['framework_monitor_context_switch', 'env_dpdk_get_mem_stats'],
];

// --- the tests ------------------------------------------------------------------------------------------------------

for (const [name, document] of documents) {
  t.test(name, async (t) => {
    const where = (line: number, text: string): string => `${name}:${line}: ${text}`;

    for (const { text, line } of document.links) {
      t.equal(brokenLink(name, text), undefined, where(line, text));
    }
    for (const { text, line } of document.spans) {
      if (!FOREIGN.includes(text)) {
        t.equal(missingPath(text), undefined, where(line, text));
      }
      if (OUR_NAME.test(text) && !FOREIGN.includes(text)) {
        t.ok(methods.names.includes(text) || SOURCE.includes(text), where(line, text));
      }
      if (/^(doorbell|npm|npx) /.test(text)) {
        t.strictSame(wrongShell(text, true), [], where(line, text));
      }
      const option = /^--[a-z-]+/.exec(text)?.[0];
      if (option !== undefined && !FOREIGN.includes(option)) {
        t.ok(OPTIONS.has(option), where(line, text));
      }
    }
    for (const { language, text, line } of document.fences) {
      t.not(language, '', where(line, 'what language is it?'));
      for (const [path] of text.matchAll(/(?<![\w./~])config\/[\w.-]+/g)) {
        t.ok(existsSync(at(path)), where(line, path));
      }
      if (language === 'sh') {
        t.strictSame(wrongShell(text), [], where(line, 'commands'));
      }
      if (language === 'json' || language === 'yaml') {
        const value = parseYaml(text) as Record<string, unknown>;
        if (value.method !== undefined) {
          t.equal(wrongCall(String(value.method), value.params), undefined, where(line, 'a call'));
        }
        if ('vms' in value || 'disks' in value || 'subsystems' in value) {
          t.doesNotThrow(
            () => compileSources([parseSource(text, `/etc/${name}`)], methods),
            where(line, 'a configuration'),
          );
        }
      }
    }
  });
}

t.test('the messages that docs/troubleshooting.md explains are printed somewhere', async (t) => {
  const program = ['src', 'addon'].map(sourceOf).join('\n');
  const name = 'docs/troubleshooting.md';
  const { headings, fences } = documents.get(name)!;
  const quoted = headings.flatMap(({ text, line }, i) => {
    const message = /^`(.+)`$/.exec(text)?.[1];
    const end = headings[i + 1]?.line ?? Number.POSITIVE_INFINITY;
    const shown = fences.find((fence) => fence.line > line && fence.line < end);
    if (message !== undefined && shown !== undefined) {
      t.ok(shown.text.includes(message), `${name}:${line}: the block shows ${message}`);
    }
    return message === undefined ? [] : [{ message, line }];
  });
  // The first column of tables of messages.
  let inTable = false;
  readFileSync(at(name), 'utf8')
    .split('\n')
    .forEach((row, i) => {
      inTable = row.startsWith('|') && (inTable || /^\| [\w ]*(message|log) \|/.test(row));
      for (const [, message] of (inTable ? row.split('|')[1] : '').matchAll(/`([^`]+)`/g)) {
        quoted.push({ message, line: i + 1 });
      }
    });
  t.ok(quoted.length > 30);
  for (const { message, line } of quoted) {
    t.ok(program.includes(message), `${name}:${line}: ${message}`);
  }
});

t.test('every guide and document is reachable from README.md', async (t) => {
  const reached = new Set<string>();
  const follow = (name: string): void => {
    if (reached.has(name) || !documents.has(name)) {
      return;
    }
    reached.add(name);
    for (const { text } of documents.get(name)?.links ?? []) {
      follow(join(dirname(name), text.split('#')[0]));
    }
  };
  follow('README.md');
  const lost = DOCUMENTS.filter((name) => !reached.has(name) && name !== 'CHANGELOG.md');
  t.strictSame(lost, []);
});

t.test('the checks find what is wrong', async (t) => {
  t.equal(brokenLink('docs/cli.md', 'rpc.md#the-socket'), undefined);
  t.equal(brokenLink('docs/cli.md', 'rpc.md#the-sockets'), 'no heading for #the-sockets');
  t.equal(brokenLink('docs/cli.md', '../docs/none.md'), 'no such file');
  t.equal(missingPath('test/integration/hostile*.test.ts'), undefined);
  t.equal(missingPath('test/integration/hostle*.test.ts'), 'test/integration/hostle*.test.ts');
  t.equal(missingPath('nothing.test.ts'), 'nothing.test.ts');
  t.strictSame(wrongShell('npx doorbell serve --disk x &\nnpm start -- --disk y # z'), []);
  t.match(wrongShell('npm run bnech'), [/no script bnech/]);
  t.match(wrongShell('npm start -- --disc y'), [/unknown option/]);
  t.match(wrongShell('npm run bench -- --qiuck'), [/--qiuck/]);
  t.match(wrongShell('a | doorbell serv'), [/unknown command/]);
  t.match(wrongShell('(umask 077; doorbell serve --disc x)'), [/unknown option/]);
  t.match(wrongShell('doorbell serve --cores x'), [/--cores/]);
  t.match(wrongShell('doorbell rpc bdev_get_bdev'), [/no method/]);
  t.match(wrongShell('doorbell rpc bdev_get_bdevs nam=x'), [/nam/]);
  t.match(wrongShell(`doorbell rpc bdev_get_bdevs '{"name":1}'`), [/name/]);
  t.match(wrongShell('doorbell perf'), [/missing required argument/]);
});

t.test('there was something to check', async (t) => {
  t.ok(documents.size > 15);
  const commands = [...documents.values()].flatMap(({ fences }) =>
    fences.filter(({ language }) => language === 'sh').flatMap(({ text }) => shellCommands(text)),
  );
  t.ok(commands.filter((words) => words.includes('doorbell')).length > 30, 'commands were found');
});
