/**
 * `node src/setup/prepare.mjs MODE`: brings a checkout to where the npm script that called it can run.
 *
 * - `addon`  builds the native addon, unless the package has one that fits (npm's install script);
 * - `build`  npm packages, toolchain, addon, TypeScript: whatever of it is missing or out of date;
 * - `types`  as `build`, and the types of what programs import;
 * - `package`  as `types`, and an addon for each supported Node;
 * - `test`   as `build`, and what tests need: a guest for the virtual machine, promtool, a browser for the dashboard.
 *
 * It is quiet when there is nothing to do, says in one line what it does otherwise, and exits with 1 on failure.
 */

import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ensureAddon } from './addon.mjs';
import { ensureBrowser } from './browser.mjs';
import { ensureGuest } from './guest.mjs';
import { ensureNbd } from './nbd.mjs';
import { ensureNodeModules } from './node-modules.mjs';
import { ensurePrebuilt, isPrebuilt } from './prebuilt.mjs';
import { ensurePromtool } from './promtool.mjs';
import { SetupError } from './tools.mjs';
import { ensureTypeScript, ensureTypes } from './typescript.mjs';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

function build() {
  ensureNodeModules(root);
  ensureAddon(root, { rebuild: false, installTools: true });
  ensureTypeScript(root);
}

/** @type {Record<string, () => void>} */
const modes = {
  addon() {
    const fromSource = process.env.npm_config_build_from_source;
    if ((fromSource === undefined || fromSource === 'false') && isPrebuilt(root)) return;
    ensureAddon(root, { rebuild: true, installTools: false });
  },
  build,
  types() {
    build();
    ensureTypes(root);
  },
  package() {
    modes.types();
    ensurePrebuilt(root);
  },
  test() {
    build();
    ensureGuest(root);
    ensurePromtool(root);
    ensureNbd(root);
    ensureBrowser(root);
  },
};

try {
  const mode = modes[process.argv[2] ?? ''];
  if (!mode) throw new SetupError(`usage: prepare.mjs ${Object.keys(modes).join('|')}`);
  if (process.platform !== 'linux') throw new SetupError('Doorbell runs on Linux only');
  mode();
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  if (error.output) process.stderr.write(error.output);
  process.stderr.write(`doorbell: ${error.message}\n`);
  process.exitCode = 1;
}
