/** The native addon: built by node-gyp into build/Release/doorbell.node. */

import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { filesBelow, hashContents, readStamp, writeStamp } from './stamps.mjs';
import { ensureToolchain } from './toolchain.mjs';
import { run, SetupError, say } from './tools.mjs';

/**
 * What the binary depends on. Part of the addon talks to V8 itself, so a binary serves one ABI only.
 *
 * @param {string} root
 * @param {string} abi of Node
 */
export function addonInputs(root, abi) {
  const files = [...filesBelow(join(root, 'addon')), join(root, 'binding.gyp')];
  return hashContents(root, files, [abi, process.arch]);
}

/**
 * @param {string} root
 * @returns {string} the path of node-gyp.js: that of a checkout, or the one that npm ships
 */
function findNodeGyp(root) {
  try {
    return createRequire(join(root, 'package.json')).resolve('node-gyp/bin/node-gyp.js');
  } catch {
    const shipped = process.env.npm_config_node_gyp;
    if (shipped && existsSync(shipped)) return shipped;
  }
  throw new SetupError('node-gyp is neither in node_modules nor in npm: run npm install');
}

/**
 * Node's own headers, when they are installed beside this Node: node-gyp then has nothing to download.
 *
 * @returns {string[]} arguments for node-gyp
 */
function headers() {
  if (process.env.npm_config_nodedir) return [];
  const prefix = dirname(dirname(process.execPath));
  try {
    const text = readFileSync(join(prefix, 'include', 'node', 'node_version.h'), 'utf8');
    const version = ['MAJOR', 'MINOR', 'PATCH'].map(
      (part) => text.match(new RegExp(`#define NODE_${part}_VERSION (\\d+)`))?.[1],
    );
    return version.join('.') === process.versions.node ? [`--nodedir=${prefix}`] : [];
  } catch {
    return [];
  }
}

/**
 * Builds the addon if what it is made from has changed.
 *
 * @param {string} root
 * @param {{ rebuild: boolean, installTools: boolean }} options `rebuild`: from scratch, whatever is there;
 *   `installTools`: a missing toolchain may be installed
 */
export function ensureAddon(root, { rebuild, installTools }) {
  const stamp = addonInputs(root, process.versions.modules);
  const stampFile = join(root, 'build', 'addon.stamp');
  const binary = join(root, 'build', 'Release', 'doorbell.node');
  if (!rebuild && readStamp(stampFile) === stamp && existsSync(binary)) return;
  ensureToolchain({ install: installTools });
  say('building the native addon (node-gyp)');
  // `rebuild` empties build/, so it is kept for the install; otherwise make sees what is still good.
  const verbs = rebuild ? ['rebuild'] : ['configure', 'build'];
  for (const verb of verbs) {
    run(process.execPath, [findNodeGyp(root), verb, '--jobs=max', ...headers()], { cwd: root });
  }
  if (!existsSync(binary)) throw new SetupError(`node-gyp ended well, but ${binary} is not there`);
  writeStamp(stampFile, stamp);
}
