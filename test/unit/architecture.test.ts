/**
 * The rules of the code's shape, checked on its import lines: a file imports from lower layers and its own folder, siblings leave
 * each other alone, and the data plane reaches neither the control plane nor any package.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

/** From dist/test/unit. */
const ROOT = fileURLToPath(new URL('../../../', import.meta.url));

/** Folders and files from the lowest layer up; those of one layer are siblings. */
const LAYERS = [
  ['src/util', 'src/limits.ts'],
  ['src/spec'],
  ['src/native'],
  ['src/memory', 'src/io', 'src/vfio-user'],
  ['src/bdev', 'src/pci'],
  ['src/reactor'],
  ['src/nvme', 'src/client'],
  ['src/target'],
  ['src/rpc', 'src/http'],
  ['src/app', 'src/cli', 'src/library', 'src/index.ts', 'workers'],
];

/** Siblings that know of each other. */
const EXCEPTIONS: Readonly<Record<string, readonly string[]>> = {
  'src/http': [
    'src/rpc/answer.ts',
    'src/rpc/dispatcher.ts',
    'src/rpc/json-stream.ts',
    'src/rpc/protocol.ts',
  ],
  // The command line starts the application.
  'src/cli': ['src/app'],
  // What programs import is made of the application, and has none of its command line.
  'src/library': ['src/app'],
  'src/index.ts': ['src/library', 'src/app/config/problem.ts'],
};

const CONTROL_PLANE = ['src/rpc', 'src/http', 'src/target', 'src/app', 'src/cli', 'src/client'];

interface Import {
  readonly specifier: string;
  /** Nothing of it is loaded. */
  readonly typeOnly: boolean;
}

function parseImports(text: string): Import[] {
  const statements = text.matchAll(/^(?:import|export) (type )?(?:[\w*{}\s,]+? from )?'([^']+)'/gm);
  const expressions = text.matchAll(/\bimport\('([^']+)'\)/g);
  return [
    ...[...statements].map(([, type, specifier]) => ({ specifier, typeOnly: type !== undefined })),
    ...[...expressions].map(([, specifier]) => ({ specifier, typeOnly: false })),
  ];
}

/** Every source file with its imports: paths from the repository's root, packages by name. */
const files = new Map<string, Import[]>();
for (const folder of ['src', 'workers']) {
  for (const name of readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })) {
    if (name.endsWith('.ts')) {
      const file = join(folder, name);
      const found = parseImports(readFileSync(join(ROOT, file), 'utf8'));
      const resolved = found.map(({ specifier, typeOnly }) => ({
        specifier: specifier.startsWith('.')
          ? relative(ROOT, resolve(ROOT, dirname(file), specifier))
          : specifier,
        typeOnly,
      }));
      files.set(file, resolved);
    }
  }
}

const isBuiltin = (specifier: string): boolean =>
  specifier.startsWith('node:') || builtinModules.includes(specifier);

const within = (file: string, folder: string): boolean =>
  file === folder || file.startsWith(`${folder}/`);

function place(file: string): { folder: string; layer: number } {
  for (const [layer, folders] of LAYERS.entries()) {
    const folder = folders.find((candidate) => within(file, candidate));
    if (folder !== undefined) {
      return { folder, layer };
    }
  }
  throw new Error(`${file} belongs to no layer`);
}

function mayImport(file: string, imported: string): boolean {
  const from = place(file);
  const to = place(imported);
  return (
    to.layer < from.layer ||
    to.folder === from.folder ||
    (EXCEPTIONS[from.folder] ?? []).some((allowed) => within(imported, allowed))
  );
}

t.test('every form of import is found', async (t) => {
  const text = `
import t from 'tap';
import {
  A,
  type B,
} from './b.ts';
import type { C } from './c.ts';
export type * from './d.ts';
export { E } from './e.ts';
import './f.ts';
  const { g } = await import('./g.ts');
`;
  t.strictSame(parseImports(text), [
    { specifier: 'tap', typeOnly: false },
    { specifier: './b.ts', typeOnly: false },
    { specifier: './c.ts', typeOnly: true },
    { specifier: './d.ts', typeOnly: true },
    { specifier: './e.ts', typeOnly: false },
    { specifier: './f.ts', typeOnly: false },
    { specifier: './g.ts', typeOnly: false },
  ]);
  t.ok(files.size > 80, `${files.size} source files`);
});

t.test('every import leads to a source file, a package or a module of Node', async (t) => {
  for (const [file, imports] of files) {
    for (const { specifier } of imports) {
      const isPath = specifier.startsWith('src/') || specifier.startsWith('workers/');
      t.ok(!isPath || files.has(specifier), `${file}: ${specifier}`);
      t.notMatch(specifier, /^\.\./, `${file}: within the repository`);
    }
  }
});

t.test('files import from lower layers and their own folder', async (t) => {
  for (const [file, imports] of files) {
    for (const { specifier } of imports) {
      if (files.has(specifier)) {
        t.ok(mayImport(file, specifier), `${file} → ${specifier}`);
      }
    }
  }
});

t.test('PCI functions and the protocol know nothing of NVMe', async (t) => {
  for (const file of files.keys()) {
    if (within(file, 'src/pci') || within(file, 'src/vfio-user')) {
      t.notMatch(readFileSync(join(ROOT, file), 'utf8'), /nvme/i, file);
    }
  }
});

t.test('bdevs, memory and reactors know no protocol', async (t) => {
  const neutral = ['src/bdev', 'src/memory', 'src/io', 'src/reactor'];
  for (const [file, imports] of files) {
    if (neutral.some((folder) => within(file, folder))) {
      const system = ['src/spec/uring.ts'];
      if (within(file, 'src/bdev/nbd')) {
        // The protocol of those whom it asks, not of hosts.
        system.push('src/spec/nbd.ts');
      }
      const known = imports.filter(
        ({ specifier }) => within(specifier, 'src/spec') && !system.includes(specifier),
      );
      t.strictSame(known, [], file);
    }
  }
});

t.test('only src/native loads the addon', async (t) => {
  for (const file of files.keys()) {
    const text = readFileSync(join(ROOT, file), 'utf8');
    t.equal(text.includes('doorbell.node'), file === 'src/native/index.ts', file);
  }
});

/** The files that some files load, themselves among them, and what these import that is none of ours. */
function closure(roots: readonly string[]): { reached: Set<string>; outside: Map<string, string> } {
  const reached = new Set<string>();
  const outside = new Map<string, string>();
  const queue = [...roots];
  for (let file = queue.pop(); file !== undefined; file = queue.pop()) {
    reached.add(file);
    for (const { specifier, typeOnly } of files.get(file) ?? []) {
      if (!typeOnly && !files.has(specifier)) {
        outside.set(specifier, file);
      } else if (!typeOnly && !reached.has(specifier)) {
        queue.push(specifier);
      }
    }
  }
  return { reached, outside };
}

t.test('what programs import leaves their process alone, and has no command line', async (t) => {
  const { exports } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    readonly exports: Readonly<Record<string, string | { readonly default: string }>>;
  };
  const roots = Object.values(exports).flatMap((entry) =>
    typeof entry === 'string' ? [] : entry.default.replace('./dist/', '').replace(/\.js$/, '.ts'),
  );
  t.ok(roots.length >= 3 && roots.every((file) => files.has(file)), 'sources of the exports');
  const { reached } = closure(roots);
  t.ok(reached.has('src/app/serve.ts') && reached.has('src/client/nvme.ts'));
  for (const file of reached) {
    t.notOk(within(file, 'src/cli') || file === 'src/app/main.ts', file);
    // Threads that sleep in the kernel have to be told that the process ends.
    const text = readFileSync(join(ROOT, file), 'utf8').replace("process.once('exit'", '');
    t.notMatch(text, /\bprocess\.(?:exit|abort|on|once|chdir)\b/, file);
  }
});

t.test('a reactor reaches no package and nothing of the control plane', async (t) => {
  const { reached, outside } = closure(['workers/reactor.ts']);
  for (const [specifier, file] of outside) {
    t.ok(isBuiltin(specifier), `${file} → ${specifier}`);
  }
  t.ok(reached.has('src/reactor/loop.ts') && reached.has('src/nvme/plane/engine.ts'));
  for (const file of reached) {
    t.notOk(
      CONTROL_PLANE.some((folder) => within(file, folder)),
      file,
    );
  }
});

t.test('the model of a configuration has no effects', async (t) => {
  const roots = [...files.keys()].filter((file) => within(file, 'src/target/model'));
  const { reached, outside } = closure(roots);
  t.ok(reached.has('src/target/model/model.ts') && reached.has('src/target/nqn.ts'));
  // Paths and hashes are computed.
  const harmless = ['node:crypto', 'node:os', 'node:path', 'node:util'];
  for (const [specifier, file] of outside) {
    t.ok(harmless.includes(specifier), `${file} → ${specifier}`);
  }
  for (const file of reached) {
    const pure = [
      'src/target/model',
      'src/target/nqn.ts',
      'src/bdev/kind-rules.ts',
      'src/util',
      'src/limits.ts',
    ];
    const isPure = pure.some((folder) => within(file, folder));
    t.ok(isPure, file);
  }
});

t.test('a reactor is handed the system: it can run where there is none', async (t) => {
  const { reached } = closure(['src/reactor/loop.ts', 'src/nvme/plane/plane.ts']);
  t.ok(reached.has('src/io/ring.ts') && reached.has('src/bdev/uring.ts'));
  t.notOk(reached.has('src/native/index.ts'));
});
