/** The npm packages: installed when node_modules does not hold what package-lock.json says. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { run, SetupError, say, which } from './tools.mjs';

/**
 * @typedef {{ version?: string, integrity?: string, resolved?: string, optional?: boolean,
 *   devOptional?: boolean, peer?: boolean, link?: boolean }} LockedPackage
 */

/**
 * @param {string} path
 * @returns {Record<string, LockedPackage> | undefined}
 */
function readLock(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8')).packages;
  } catch {
    return undefined;
  }
}

/**
 * Compares package-lock.json with the lock that npm keeps of what it installed. Times say nothing here: a fresh
 * checkout is newer than its node_modules.
 *
 * @param {string} root
 * @returns {boolean}
 */
function isInstalled(root) {
  const wanted = readLock(join(root, 'package-lock.json'));
  const installed = readLock(join(root, 'node_modules', '.package-lock.json'));
  if (!wanted) throw new SetupError('package-lock.json is missing or is not JSON');
  if (!installed) return false;
  return Object.entries(wanted).every(([path, locked]) => {
    if (path === '') return true;
    const present = installed[path];
    // An optional package for another platform is locked, but never installed.
    if (!present) return locked.optional === true || locked.devOptional === true;
    return present.version === locked.version && present.integrity === locked.integrity;
  });
}

/**
 * Installs the packages if they are not there, with the development ones (the compiler is one of them), and without
 * install scripts: no dependency has one, and ours, the addon, is built by {@link file://./addon.mjs}.
 *
 * @param {string} root
 */
export function ensureNodeModules(root) {
  if (isInstalled(root)) return;
  say('installing npm packages (npm ci)');
  const args = ['ci', '--ignore-scripts', '--include=dev', '--no-audit', '--no-fund'];
  const npm = process.env.npm_execpath;
  if (npm?.endsWith('npm-cli.js')) {
    run(process.execPath, [npm, ...args], { cwd: root });
  } else if (which('npm')) {
    run('npm', args, { cwd: root });
  } else {
    throw new SetupError(
      'npm is not on PATH: it installs the packages that Doorbell is built with',
    );
  }
}
