/**
 * The browser that shows the dashboard to the tests: the machine's Chromium, or Debian's headless one in the user's cache folder.
 *
 * The outcome is written to dist/browser.json, which test/helpers/browser.ts reads: the program, or the reason why there is none. That
 * reason is no failure of the set-up: the tests skip with it.
 */

import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  realpathSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cached, cacheFolder } from './cache.mjs';
import { fetchPackages, packagesUnavailable, Unpacked } from './debian-packages.mjs';
import { hashContents, writeStamp } from './stamps.mjs';
import { SetupError, say } from './tools.mjs';

/** The recipe: a change to any of these makes a new browser. */
const RECIPE = ['browser.mjs', 'cache.mjs', 'debian-packages.mjs'];
const PACKAGES = ['chromium-headless-shell', 'fonts-roboto-unhinted', 'fonts-dejavu-core'];

/** What Debian's packages install. The system's own is used if it is there. */
const SYSTEM = ['/usr/bin/chromium', '/usr/bin/chromium-headless-shell'];

const LIBRARIES = '/usr/lib/x86_64-linux-gnu';
const CHROMIUM = '/usr/lib/chromium';
const PROGRAM = `${CHROMIUM}/chromium-headless-shell`;
/** Beside the program, because it finds its data in the folder of /proc/self/exe, which is the loader. */
const LOADER = `${CHROMIUM}/ld.so`;
const LAUNCHER = 'chromium';
/** Of the packages, beyond libraries: fonts and their settings. */
const FOLDERS = ['/etc/fonts', '/usr/share/fontconfig', '/usr/share/fonts'];
/** Loaded by NSS when it starts. */
const PLUGINS = /^lib(softokn3|freebl3|freeblpriv3|nssckbi)\.so$/;

/**
 * Copies the browser, its libraries and its fonts out of unpacked packages.
 *
 * @param {Unpacked} packages
 * @param {string} folder
 */
function extractBrowser(packages, folder) {
  const plugins = readdirSync(packages.path(LIBRARIES)).filter((name) => PLUGINS.test(name));
  const data = readdirSync(packages.path(CHROMIUM)).filter((name) => /\.(pak|bin|dat)$/.test(name));
  const files = [
    PROGRAM,
    ...packages.libraries(PROGRAM),
    ...plugins.map((name) => `${LIBRARIES}/${name}`),
    ...data.map((name) => `${CHROMIUM}/${name}`),
  ];
  for (const path of new Set(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    copyFileSync(packages.path(path), join(folder, path));
  }
  for (const path of FOLDERS) {
    cpSync(packages.path(path), join(folder, path), { recursive: true, verbatimSymlinks: true });
  }
  const [loader] = packages.command(PROGRAM);
  copyFileSync(realpathSync(/** @type {string} */ (loader)), join(folder, LOADER));
}

/**
 * Writes the script that runs an extracted browser from wherever its folder is. Its child processes are started by the same script: without
 * that they would run /proc/self/exe, which is the loader; and without a zygote, which knows no other way.
 *
 * @param {string} folder
 */
function writeLauncher(folder) {
  const packages = new Unpacked(folder);
  const command = [packages.path(LOADER), ...packages.command(PROGRAM).slice(1)];
  const words = command.map((word) => `"${word.replaceAll(folder, '$here')}"`);
  const script = join(folder, LAUNCHER);
  writeFileSync(
    script,
    `#!/bin/sh
here="\${0%/*}"
FONTCONFIG_SYSROOT="$here" exec ${words.join(' ')} \\
  --no-zygote --browser-subprocess-path="$0" "$@"
`,
  );
  chmodSync(script, 0o755);
}

/** @param {string} program @returns {boolean} whether it starts */
function runs(program) {
  return spawnSync(program, ['--version'], { stdio: 'ignore' }).status === 0;
}

/**
 * Sees to it that the dashboard's tests have a browser, or know why not.
 *
 * @param {string} root
 */
export function ensureBrowser(root) {
  const here = dirname(fileURLToPath(import.meta.url));
  /** @type {object} */
  let outcome;
  try {
    outcome = { program: SYSTEM.find(runs) ?? debianBrowser(root, here) };
  } catch (error) {
    // A tool that failed, or the file system: what else is thrown is our own fault.
    if (!(error instanceof SetupError) && !(error instanceof Error && 'code' in error)) throw error;
    if (error instanceof SetupError) process.stderr.write(error.output);
    const unavailable = `no Chromium: ${error.message}`;
    say(
      `${unavailable}; the browser tests will ${process.env.CI === 'true' ? 'fail' : 'be skipped'}`,
    );
    outcome = { unavailable };
  }
  writeStamp(join(root, 'dist', 'browser.json'), JSON.stringify(outcome, undefined, 2));
}

/**
 * @param {string} root
 * @param {string} here
 * @returns {string} the program
 */
function debianBrowser(root, here) {
  const recipe = RECIPE.map((name) => join(here, name));
  const stamp = hashContents(root, recipe).slice(0, 16);
  const folder = cached('browser', stamp, (made, work) => {
    const reason = packagesUnavailable();
    if (reason) throw new SetupError(reason);
    say(`fetching Chromium from Debian (once, kept in ${cacheFolder()})`);
    extractBrowser(fetchPackages(join(work, 'packages'), PACKAGES), made);
    writeLauncher(made);
  });
  const program = join(folder, LAUNCHER);
  if (!runs(program)) throw new SetupError(`${program} does not start`);
  return program;
}
