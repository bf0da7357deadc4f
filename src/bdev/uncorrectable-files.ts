/**
 * The files of bdevs with their uncorrectable blocks, however many bdevs are on one; and those that have such blocks and no bdev just now.
 * Owned by main.
 */
import { type FileIdentity, isSameFile, keyOf } from './failed-files.ts';
import { type ByteRange, type KeepRanges, UncorrectableRanges } from './uncorrectable-ranges.ts';

/** A file with uncorrectable blocks. */
export interface UncorrectableFile extends FileIdentity {
  readonly ranges: readonly ByteRange[];
}

interface OpenFile {
  readonly identity: FileIdentity;
  readonly ranges: UncorrectableRanges;
  /** Bdevs on it. */
  users: number;
}

export class UncorrectableFiles {
  readonly #open = new Map<string, OpenFile>();
  /** Without a bdev. */
  #left: UncorrectableFile[] = [];
  /** Makes what `list` gives durable. Without it, all is kept as long as the process lives. */
  keep: KeepRanges = async () => {};

  /** Files as `list` gave them earlier. Before there are bdevs. */
  restore(files: readonly UncorrectableFile[]): void {
    this.#left.push(...files);
  }

  list(): readonly UncorrectableFile[] {
    const open = [...this.#open.values()].map(describe);
    return [...open, ...this.#left].filter(({ ranges }) => ranges.length > 0);
  }

  /** One more bdev is on this file. */
  take(identity: FileIdentity): UncorrectableRanges {
    const key = keyOf(identity);
    let file = this.#open.get(key);
    if (file === undefined) {
      const known = this.#left.find((left) => isSameFile(left, identity));
      this.#left = this.#left.filter((left) => left !== known);
      const ranges = new UncorrectableRanges(known?.ranges, () => this.keep());
      file = { identity, ranges, users: 0 };
      this.#open.set(key, file);
    }
    file.users += 1;
    return file.ranges;
  }

  /** One less. */
  give(identity: FileIdentity): void {
    const key = keyOf(identity);
    const file = this.#open.get(key);
    if (file === undefined) {
      return;
    }
    file.users -= 1;
    if (file.users === 0) {
      this.#open.delete(key);
      file.ranges.close();
      this.#left.push(describe(file));
    }
  }
}

function describe({ identity, ranges }: OpenFile): UncorrectableFile {
  return { ...identity, ranges: ranges.list };
}
