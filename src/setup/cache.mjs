/** Things that tests need and that take long to make: each made once, in a folder of the user's cache that its recipe names. */

import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

const DAY_MS = 24 * 60 * 60 * 1000;

export function cacheFolder() {
  // The XDG specification wants a relative path to be ignored.
  const configured = process.env.XDG_CACHE_HOME;
  return join(configured?.startsWith('/') ? configured : join(homedir(), '.cache'), 'doorbell');
}

/**
 * Gives the folder `KIND-STAMP` of the cache, made first if it is not there. Those of other stamps are removed.
 *
 * @param {string} kind
 * @param {string} stamp what it is made from
 * @param {(folder: string, work: string) => void} make fills `folder`, which is there and empty; `work` goes afterwards
 * @returns {string}
 */
export function cached(kind, stamp, make) {
  const cache = cacheFolder();
  const folder = join(cache, `${kind}-${stamp}`);
  if (existsSync(folder)) return folder;
  mkdirSync(cache, { recursive: true });
  const work = mkdtempSync(join(cache, 'work-'));
  try {
    const made = join(work, kind);
    mkdirSync(made);
    make(made, work);
    try {
      renameSync(made, folder);
    } catch (error) {
      // Another set-up was faster: what it made is the same.
      if (!existsSync(folder)) throw error;
    }
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  for (const name of readdirSync(cache)) {
    const path = join(cache, name);
    const old = name.startsWith(`${kind}-`) && path !== folder;
    // Left by a set-up that was interrupted; a young one may still be at work.
    const leftover = name.startsWith('work-') && Date.now() - statSync(path).mtimeMs > DAY_MS;
    if (old || leftover) rmSync(path, { recursive: true, force: true });
  }
  return folder;
}
