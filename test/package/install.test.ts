/**
 * What others get: the packed package, installed into an empty folder on every Node that it supports, with `--engine-strict` and without
 * development packages. Needs the npm registry. `npm run test:package`.
 */
import { spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type tap from 'tap';
import { t } from 'tap';
import { parseMarkdown } from '../helpers/markdown.ts';
import type { Test } from '../helpers/target.ts';

/** From dist/test/package. */
const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const NAME = 'doorbell-nvme';
/** The first and the last of each: what was built for one has to serve the other. */
const OTHER_NODES = ['20.17.0', '22.12.0', '22.23.3', '24.11.0', '24.21.0'];
/** Installed for whoever runs it. */
const MAX_PACKAGES = 72;
const MAX_BYTES = 42 * 2 ** 20;

const { ensureNode } = (await import(
  pathToFileURL(join(ROOT, 'src/setup/node-versions.mjs')).href
)) as { readonly ensureNode: (version: string) => string };

/** npm as it was started with, or as it lies beside this Node. */
const NPM =
  process.env.npm_execpath ??
  join(dirname(process.execPath), '../lib/node_modules/npm/bin/npm-cli.js');

interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly output: string;
}

function run(
  node: string,
  args: readonly string[],
  cwd: string,
  environment: NodeJS.ProcessEnv = {},
): Outcome {
  // Nothing of the npm and the tap that run this test; `node` is the one that is tried.
  const inherited = Object.entries(process.env).filter(
    ([name]) => !/^(?:npm_|TAP|NODE_OPTIONS$)/i.test(name),
  );
  const env = {
    ...Object.fromEntries(inherited),
    PATH: [dirname(node), process.env.PATH].join(delimiter),
    ...environment,
  };
  const { status, stdout, stderr } = spawnSync(node, [...args], {
    cwd,
    env,
    encoding: 'utf8',
    timeout: 900_000,
  });
  return { status, stdout, output: stdout + stderr };
}

function folder(t: Test): string {
  const path = mkdtempSync(join(tmpdir(), 'doorbell-package-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

const packed = folder(t);
const packing = run(
  process.execPath,
  [NPM, 'pack', '--ignore-scripts', '--json', '--pack-destination', packed],
  ROOT,
);
const [{ filename, files }] = JSON.parse(packing.stdout) as [
  { readonly filename: string; readonly files: readonly { readonly path: string }[] },
];
const TARBALL = join(packed, filename);

/** An empty folder with the package in it. */
function install(t: Test, node: string, environment: NodeJS.ProcessEnv = {}): string {
  const project = folder(t);
  writeFileSync(join(project, 'package.json'), '{ "private": true, "type": "module" }');
  const options = ['--engine-strict', '--omit=dev', '--no-audit', '--no-fund'];
  const outcome = run(node, [NPM, 'install', ...options, TARBALL], project, environment);
  if (outcome.status !== 0) {
    throw new Error(`npm install failed: ${outcome.output}`);
  }
  return project;
}

const PROGRAM = `
import { startTestTarget } from '${NAME}/testing';
const test = await startTestTarget({ disks: [{ file: process.argv[2], size: '16M' }, { ram: '16M' }] });
const drive = await test.connect();
for (const nsid of [1, 2]) {
  const namespace = await drive.namespace(nsid);
  const data = new Uint8Array(3 * 2 ** 20).map((_, i) => (i * 7 + nsid) % 251);
  await namespace.write(5, data);
  await namespace.flush();
  if (Buffer.compare(await namespace.read(5, data.length / namespace.blockSize), data) !== 0) {
    throw new Error('other data');
  }
}
await test.stop();
console.log(process.version, 'read what was written');
`;

function tryOut(t: Pick<typeof tap, 'equal' | 'match'>, node: string, project: string): void {
  const program = join(project, 'program.mjs');
  writeFileSync(program, PROGRAM);
  const { status, output } = run(node, [program, join(project, 'disk.img')], project);
  t.equal(status, 0, output);
  t.match(output, /read what was written/);
  const command = join(project, 'node_modules/.bin/doorbell');
  t.match(run(node, [command, '--version'], project).stdout, /^\d+\.\d+\.\d+\n$/);
  t.match(run(node, [command, 'config', 'check', 'none.yaml'], project).output, /none\.yaml/);
}

const NODES = [
  { version: process.versions.node, node: process.execPath },
  ...OTHER_NODES.map((version) => ({ version, node: ensureNode(version) })),
];

for (const { version, node } of NODES) {
  t.test(`Node ${version}`, async (t) => {
    const project = install(t, node);
    const own = join(project, 'node_modules', NAME);
    t.notOk(existsSync(join(own, 'build')), 'the addon that comes with it is used');
    tryOut(t, node, project);
  });
}

t.test('it builds its addon where there is none that fits', async (t) => {
  const project = install(t, process.execPath, { npm_config_build_from_source: 'true' });
  t.ok(existsSync(join(project, 'node_modules', NAME, 'build/Release/doorbell.node')));
  tryOut(t, process.execPath, project);
});

t.test('what is installed, and how much of it', async (t) => {
  const project = install(t, process.execPath);
  const listed = run(
    process.execPath,
    [NPM, 'ls', '--omit=dev', '--all', '--parseable'],
    project,
  ).stdout;
  const packages = listed.trim().split('\n').length - 1;
  const bytes = bytesBelow(join(project, 'node_modules'));
  t.comment(`${packages} packages, ${(bytes / 2 ** 20).toFixed(1)} MiB`);
  t.ok(packages <= MAX_PACKAGES, `${packages} packages`);
  t.ok(bytes <= MAX_BYTES, `${bytes} bytes`);
  for (const path of [
    'README.md',
    'LICENSE',
    'docs/embedding.md',
    'config/doorbell.service',
    'examples/embed.mjs',
    'dist/src/index.d.ts',
    'src/http/dashboard/index.html',
  ]) {
    t.ok(
      files.some((file) => file.path === path),
      path,
    );
  }
  t.notOk(files.some(({ path }) => /(^|\/)test\/|\.tap\/|^dist\/bench/.test(path)));
});

function bytesBelow(path: string): number {
  return readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, { parentPath, name }) => sum + readFileSync(join(parentPath, name)).length, 0);
}

t.test('its types are right for what the documents and examples do', async (t) => {
  const project = install(t, process.execPath);
  cpSync(join(ROOT, 'examples'), join(project, 'examples'), { recursive: true });
  mkdirSync(join(project, 'docs'));
  const { fences } = parseMarkdown(readFileSync(join(ROOT, 'docs/embedding.md'), 'utf8'));
  const blocks = fences.filter(({ language }) => language === 'js');
  t.equal(blocks.length, 3);
  for (const [i, { text }] of blocks.entries()) {
    writeFileSync(join(project, `docs/block${i}.ts`), text);
  }
  writeFileSync(
    join(project, 'wrong.ts'),
    `import { createTarget } from '${NAME}';
const target = createTarget();
// @ts-expect-error: it has no such parameter
await target.rpc.bdev_malloc_create({ blocks: 8, block_size: 512 });
// @ts-expect-error: it gives a string
const name: number = await target.rpc.bdev_malloc_create({ num_blocks: 8, block_size: 512 });
// @ts-expect-error: it has no such option
createTarget({ reactor: 1 });
// @ts-expect-error: a disk has no such key
await target.addVm('vm', { disks: [{ ramm: '4M' }] });
export { name };
`,
  );
  const config = {
    compilerOptions: {
      target: 'es2022',
      module: 'nodenext',
      strict: true,
      noEmit: true,
      allowJs: true,
      checkJs: true,
      skipLibCheck: true,
      typeRoots: [join(ROOT, 'node_modules/@types')],
      types: ['node'],
    },
    include: ['examples/**/*', 'docs/*', 'wrong.ts'],
  };
  writeFileSync(join(project, 'tsconfig.json'), JSON.stringify(config));
  const tsc = join(ROOT, 'node_modules/typescript/lib/tsc.js');
  const { status, output } = run(process.execPath, [tsc, '-p', '.'], project);
  t.equal(status, 0, output);
});
