/**
 * `npm run test:sanitize`: the addon's tests, and those with hostile guests and VMMs, with an addon that AddressSanitizer and
 * UndefinedBehaviorSanitizer watch, in the tests' own process and in the targets that they start. Arguments: tests to run instead.
 *
 * The addon lies where the compiled code looks for it, so the code is copied beside one of its own: `build-sanitize/`, which is a checkout by
 * links. Leaks are not looked for: Node ends without freeing what it has.
 */

import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ensureAddon } from './addon.mjs';
import { SetupError, say } from './tools.mjs';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const copy = join(root, 'build-sanitize');
const reports = join(copy, 'reports');

const FLAGS = [
  '-fsanitize=address,undefined',
  '-fno-sanitize-recover=undefined',
  '-fno-omit-frame-pointer',
  '-g',
];

/** What the addon's own tests are, and who attacks it through the target. */
const TESTS = [
  'unit/native-*',
  'integration/hostile*',
  'integration/dma*',
  'integration/vfio-user-c*',
  'integration/interrupts*',
  'integration/reset*',
  'integration/death*',
  'neighbour/vmm*',
];

/**
 * The runtime that has to be in a process before anything else.
 *
 * @returns {string | undefined} its path; undefined if the compiler has none
 */
function findRuntime() {
  const [compiler, ...args] = (process.env.CXX ?? 'g++').split(' ');
  for (const name of ['libasan.so', 'libclang_rt.asan-x86_64.so', 'libclang_rt.asan.so']) {
    const found = spawnSync(compiler, [...args, `-print-file-name=${name}`], { encoding: 'utf8' });
    const path = found.stdout?.trim();
    // A name that is not known comes back as it is.
    if (path && path !== name && existsSync(path)) return path;
  }
  return undefined;
}

/** Everything that tests look for in a checkout, and the compiled code. */
function layOut() {
  mkdirSync(copy, { recursive: true });
  for (const name of ['package.json', 'binding.gyp']) {
    copyFileSync(join(root, name), join(copy, name));
  }
  for (const name of ['addon', 'src', 'test', 'bench', 'config', 'docs', 'README.md']) {
    if (!existsSync(join(copy, name))) symlinkSync(join('..', name), join(copy, name));
  }
  rmSync(join(copy, 'dist'), { recursive: true, force: true });
  cpSync(join(root, 'dist'), join(copy, 'dist'), { recursive: true });
  rmSync(reports, { recursive: true, force: true });
  mkdirSync(reports);
}

/**
 * Compiled tests whose names match a pattern with `*`.
 *
 * @param {string} pattern
 * @returns {string[]}
 */
function matching(pattern) {
  const [folder, name] = pattern.split('/');
  const expression = new RegExp(`^${name.replaceAll('*', '.*')}\\.test\\.js$`);
  const found = readdirSync(join(copy, 'dist', 'test', folder)).filter((file) =>
    expression.test(file),
  );
  return found.map((file) => join('dist', 'test', folder, file));
}

/**
 * @param {string} runtime
 * @param {readonly string[]} tests
 * @returns {boolean} whether they passed and the sanitizers had nothing to report
 */
function runTests(runtime, tests) {
  say(`${tests.length} test files under ${runtime}: ${tests.join(' ')}`);
  const common = `abort_on_error=1:log_path=${join(reports, 'report')}`;
  const tap = join(root, 'node_modules', '.bin', 'tap');
  const { status } = spawnSync(
    tap,
    ['--disable-coverage', '--jobs=1', '--timeout=1800', ...tests],
    {
      cwd: copy,
      stdio: 'inherit',
      env: {
        ...process.env,
        LD_PRELOAD: runtime,
        // The addon has a handler for SIGBUS of its own, and maps over what guests take away.
        ASAN_OPTIONS: `${common}:detect_leaks=0:allow_user_segv_handler=1:handle_sigbus=0`,
        UBSAN_OPTIONS: `${common}:print_stacktrace=1`,
      },
    },
  );
  const written = readdirSync(reports);
  for (const name of written) {
    process.stderr.write(`${name}\n${readFileSync(join(reports, name), 'utf8')}\n`);
  }
  say(
    `sanitizers: ${written.length === 0 ? 'nothing to report' : `${written.length} reports in ${reports}`}`,
  );
  return status === 0 && written.length === 0;
}

function main() {
  const runtime = findRuntime();
  if (runtime === undefined) {
    say(
      'skipped: the compiler has no AddressSanitizer runtime (on Debian or Ubuntu it comes with g++)',
    );
    return;
  }
  layOut();
  process.env.CXXFLAGS = FLAGS.join(' ');
  process.env.LDFLAGS = FLAGS[0];
  ensureAddon(copy, { rebuild: false, installTools: false });
  const patterns = process.argv.slice(2);
  const tests = (patterns.length > 0 ? patterns : TESTS).flatMap(matching);
  if (tests.length === 0) throw new SetupError(`no test is named ${patterns.join(' or ')}`);
  if (!runTests(runtime, tests)) process.exitCode = 1;
}

try {
  main();
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  if (error.output) process.stderr.write(error.output);
  process.stderr.write(`doorbell: ${error.message}\n`);
  process.exitCode = 1;
}
