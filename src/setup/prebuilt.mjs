/**
 * Addons that are built before they are needed: one for each ABI of Node, in the package, so that who installs it needs no compiler. Part of
 * the addon talks to V8 itself, so there is none that serves every Node.
 */

import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { addonInputs } from './addon.mjs';
import { ensureNode } from './node-versions.mjs';
import { readStamp, writeStamp } from './stamps.mjs';
import { run, say } from './tools.mjs';

/** A version of each Node that the package supports; any of the same major loads the same addon. */
const NODES = { 115: '20.20.2', 127: '22.23.3', 137: '24.21.0' };

/**
 * As prebuildify names them. src/native loads the same path.
 *
 * @param {string} root
 * @param {string} abi
 */
function paths(root, abi) {
  const base = join(root, 'prebuilds', `linux-${process.arch}`, `doorbell.abi${abi}.glibc`);
  return { binary: `${base}.node`, stamp: `${base}.stamp` };
}

/**
 * @param {string} root
 * @returns {boolean} whether there is an addon for this very Node, made from these sources, that this system can load
 */
export function isPrebuilt(root) {
  const abi = process.versions.modules;
  const { binary, stamp } = paths(root, abi);
  if (!existsSync(binary) || readStamp(stamp) !== addonInputs(root, abi)) return false;
  const load = 'process.dlopen({ exports: {} }, process.argv[1])';
  return spawnSync(process.execPath, ['-e', load, binary], { stdio: 'ignore' }).status === 0;
}

/**
 * Builds the addon for every Node of {@link NODES} that has none, each with the headers of that Node, which come from the npm registry.
 *
 * @param {string} root
 */
export function ensurePrebuilt(root) {
  for (const [abi, version] of Object.entries(NODES)) {
    const { binary, stamp } = paths(root, abi);
    const inputs = addonInputs(root, abi);
    if (existsSync(binary) && readStamp(stamp) === inputs) continue;
    const node = abi === process.versions.modules ? process.execPath : ensureNode(version);
    say(`building the native addon for Node ${version.split('.')[0]}`);
    // In a folder of its own: the checkout keeps the addon that it has.
    const work = mkdtempSync(join(tmpdir(), 'doorbell-prebuilt-'));
    try {
      for (const name of ['addon', 'binding.gyp', 'package.json', 'src/setup']) {
        cpSync(join(root, name), join(work, name), { recursive: true });
      }
      symlinkSync(join(root, 'node_modules'), join(work, 'node_modules'));
      run(node, [join(work, 'src/setup/prepare.mjs'), 'addon'], { cwd: work });
      mkdirSync(join(binary, '..'), { recursive: true });
      copyFileSync(join(work, 'build/Release/doorbell.node'), binary);
      writeStamp(stamp, inputs);
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
  }
}
