/** What a target holds of others: descriptors and mapped files, by name, to see that a guest that was removed has left nothing. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

export interface Footprint {
  /** What the descriptors are open on, as /proc shows it. */
  readonly descriptors: readonly string[];
  /** Files that are mapped, by device and inode: guest memory among them. */
  readonly files: ReadonlySet<string>;
  readonly mappings: number;
}

/** A file that is mapped: device, inode, path. */
const MAPPED = /^[\da-f]+-[\da-f]+ \S+ \S+ (\S+) ([1-9]\d*) +(.*)$/;

export function footprint(pid: number): Footprint {
  const descriptors = readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
    } catch {
      // Closed since the folder was read.
      return [];
    }
  });
  const lines = readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n').slice(0, -1);
  const files = lines.flatMap((line) => {
    const [, device, inode, path] = MAPPED.exec(line) ?? [];
    return device === undefined ? [] : [`${path} (${device} ${inode})`];
  });
  return { descriptors, files: new Set(files), mappings: lines.length };
}

/** Two descriptors are the same if they are on the same thing; of things without a name the kind counts. */
function more(now: readonly string[], before: readonly string[]): string[] {
  const left = [...before];
  const kind = (name: string): string => name.replace(/^(socket|pipe):.*/, '$1');
  return now.filter((name) => {
    const at = left.findIndex((other) => kind(other) === kind(name));
    if (at >= 0) {
      left.splice(at, 1);
    }
    return at < 0;
  });
}

/**
 * Of the process itself, made when it is first needed: shared libraries; what signals of eventfds that may block are made with; memory that
 * has no file ('/dev/zero': where transfers go that must not use a guest's).
 */
const OWN_FILE = /\.(so|node)\b|^\/\[aio\]|^\/dev\/zero /;
const OWN_DESCRIPTORS: readonly string[] = ['/dev/null'];

/** What there is now and was not before: descriptors, mapped files. */
export function residue(now: Footprint, before: Footprint): string[] {
  const files = [...now.files].filter((file) => !before.files.has(file) && !OWN_FILE.test(file));
  const descriptors = more(now.descriptors, before.descriptors);
  return [
    ...descriptors
      .filter((name) => !OWN_DESCRIPTORS.includes(name))
      .map((name) => `descriptor ${name}`),
    ...files.map((name) => `mapping of ${name}`),
  ];
}

const PATIENCE_MS = 30_000;

/**
 * Resolves when the process holds nothing that it did not hold before. Rejects with what is left after half a minute. `mappings` more
 * are let pass: addresses that were given up are free when they have been collected.
 */
export async function backTo(pid: number, before: Footprint, mappings: number): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  for (;;) {
    const now = footprint(pid);
    const left = residue(now, before);
    if (now.mappings > before.mappings + mappings) {
      left.push(`${now.mappings - before.mappings} mappings`);
    }
    if (left.length === 0) {
      return;
    }
    if (performance.now() > end) {
      throw new Error(`the target keeps ${left.slice(0, 20).join(', ')}`);
    }
    await sleep(50);
  }
}
