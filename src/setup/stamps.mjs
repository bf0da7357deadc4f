/** Stamps: a small file beside a product that holds the hash of what it was made from. */

import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';

/**
 * Lists the files below a folder, sorted; none when it does not exist.
 *
 * @param {string} folder
 * @returns {string[]} full paths
 */
export function filesBelow(folder) {
  /** @type {string[]} */
  const files = [];
  try {
    for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
      // `parentPath` is Node 20.12's name for what `path` was before.
      if (entry.isFile()) files.push(join(entry.parentPath ?? entry.path, entry.name));
    }
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'ENOENT') throw error;
  }
  return files.sort();
}

/**
 * Hashes some files by name and content.
 *
 * @param {string} root names are relative to it
 * @param {readonly string[]} files
 * @param {readonly unknown[]} facts anything else that the product depends on
 * @returns {string} hex
 */
export function hashContents(root, files, facts = []) {
  const hash = createHash('sha256').update(JSON.stringify(facts));
  for (const file of files) {
    const content = readFileSync(file);
    hash.update(`\0${relative(root, file)}\0${content.length}\0`).update(content);
  }
  return hash.digest('hex');
}

/**
 * Hashes some files by name, size and time of change: no file is read, so it suits many of them.
 *
 * @param {string} root names are relative to it
 * @param {readonly string[]} files
 * @param {readonly unknown[]} facts anything else that the product depends on
 * @returns {string} hex
 */
export function hashTimes(root, files, facts = []) {
  const hash = createHash('sha256').update(JSON.stringify(facts));
  for (const file of files) {
    const { size, mtimeMs } = statSync(file);
    hash.update(`\0${relative(root, file)}\0${size}\0${mtimeMs}`);
  }
  return hash.digest('hex');
}

/**
 * @param {string} path
 * @returns {string | undefined} the stamp, if there is one
 */
export function readStamp(path) {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined;
  }
}

/**
 * @param {string} path
 * @param {string} stamp
 */
export function writeStamp(path, stamp) {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${stamp}\n`);
}
