/** The TypeScript sources: compiled by tsc into dist/, only when one of them changed. */

import { existsSync, rmSync } from 'node:fs';
import { join, relative } from 'node:path';
import { filesBelow, hashTimes, readStamp, writeStamp } from './stamps.mjs';
import { run, say } from './tools.mjs';

const FOLDERS = ['src', 'workers', 'bench', 'test'];

/**
 * tsc leaves the output of a deleted source behind; a deleted test would still run.
 *
 * @param {string} root
 */
function removeOrphans(root) {
  for (const folder of FOLDERS) {
    for (const output of filesBelow(join(root, 'dist', folder))) {
      const source = relative(join(root, 'dist'), output).replace(/\.js(\.map)?$/, '.ts');
      if (/\.js(\.map)?$/.test(output) && !existsSync(join(root, source))) rmSync(output);
    }
  }
}

/**
 * Compiles if a source, the settings or the locked compiler changed since the last success.
 *
 * @param {string} root
 */
export function ensureTypeScript(root) {
  const sources = FOLDERS.flatMap((folder) => filesBelow(join(root, folder))).filter((file) =>
    file.endsWith('.ts'),
  );
  const settings = [join(root, 'tsconfig.json'), join(root, 'package-lock.json')];
  const stamp = hashTimes(root, [...sources, ...settings]);
  const stampFile = join(root, 'dist', 'typescript.stamp');
  if (readStamp(stampFile) === stamp) return;
  say('compiling TypeScript (tsc)');
  tsc(root, '.');
  removeOrphans(root);
  writeStamp(stampFile, stamp);
}

/**
 * Writes the declarations of what the package exports, and of what these need. Only the package has a use for them.
 *
 * @param {string} root
 */
export function ensureTypes(root) {
  for (const file of filesBelow(join(root, 'dist'))) {
    if (file.endsWith('.d.ts')) rmSync(file);
  }
  say('writing type declarations (tsc)');
  tsc(root, 'tsconfig.types.json');
}

/**
 * @param {string} root
 * @param {string} project
 */
function tsc(root, project) {
  const compiler = join(root, 'node_modules', 'typescript', 'lib', 'tsc.js');
  run(process.execPath, [compiler, '-p', project], { cwd: root });
}
