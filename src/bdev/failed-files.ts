/**
 * The files of bdevs, each with the word that says whether its write-back has failed (`write-back.ts`), however many bdevs are on it; and
 * the files that failed and have no bdev just now, for deleting a bdev brings no data back. Owned by main.
 */
import { resolve } from 'node:path';
import type { FileStatus } from '../native/types.ts';
import { makeWriteBack, WriteBack } from './write-back.ts';

/** What tells one file from another, also after a restart of the process or the host. */
export interface FileIdentity {
  readonly kind: 'file' | 'device';
  /** Of a file, the device that it is on; of a device, its own. */
  readonly device: string;
  /** Of a file. An inode number is another file's when the file is gone; then the birth differs, where the file system knows it. */
  readonly inode: string;
  /** Nanoseconds since 1970. */
  readonly born: string;
  /** As the operator named it, absolute. */
  readonly path: string;
}

/** A file whose write-back has failed. */
export interface FailedFile extends FileIdentity {
  /** What the system said; positive. */
  readonly errno: number;
  /** When it became known. ISO 8601. */
  readonly time: string;
}

/** `born`: nanoseconds since 1970, see `birth` of the native calls. */
export function identifyFile(
  { kind, dev, ino, rdev }: FileStatus,
  born: bigint,
  filename: string,
): FileIdentity {
  const path = resolve(filename);
  return kind === 'file'
    ? { kind, device: String(dev), inode: String(ino), born: String(born), path }
    : { kind: 'device', device: String(rdev), inode: '', born: '', path };
}

/** The same for the same file, by whatever path, as long as the host runs. */
export function keyOf({ kind, device, inode }: FileIdentity): string {
  return `${kind} ${device} ${inode}`;
}

/** Over lives of the host, too: then devices have other numbers, but files their paths. */
export function isSameFile(one: FileIdentity, other: FileIdentity): boolean {
  return (
    one.kind === other.kind &&
    (one.device === other.device || one.path === other.path) &&
    one.inode === other.inode &&
    one.born === other.born
  );
}

/** A file that bdevs have open. */
export class BdevFile {
  readonly identity: FileIdentity;
  /** Bdevs on it. */
  users = 0;
  readonly #tell: (failure: FailedFile) => void;
  #memory: SharedArrayBuffer;
  #writeBack: WriteBack;
  #failure: FailedFile | undefined;

  constructor(
    identity: FileIdentity,
    failure: FailedFile | undefined,
    tell: (failure: FailedFile) => void,
  ) {
    this.identity = identity;
    this.#tell = tell;
    this.#failure = failure;
    this.#memory = makeWriteBack(failure?.errno);
    this.#writeBack = new WriteBack(this.#memory);
    void this.#watch(this.#writeBack);
  }

  /** The same for two bdevs of the same file or device, by whatever path. */
  get key(): string {
    return keyOf(this.identity);
  }

  /** For reactors. */
  get memory(): SharedArrayBuffer {
    return this.#memory;
  }

  /** Main's view of `memory`. */
  get writeBack(): WriteBack {
    return this.#writeBack;
  }

  /** What is known to have failed. */
  get failure(): FailedFile | undefined {
    this.#look();
    return this.#failure;
  }

  async #watch(writeBack: WriteBack): Promise<void> {
    await writeBack.wait();
    if (writeBack === this.#writeBack) {
      this.#look();
    }
  }

  #look(): void {
    const { errno } = this.#writeBack;
    if (this.#failure === undefined && errno !== 0) {
      this.#failure = { ...this.identity, errno, time: new Date().toISOString() };
      this.#tell(this.#failure);
    }
  }

  /** See `FailedFiles.renew`. */
  renew(): void {
    this.close();
    this.#failure = undefined;
    this.#memory = makeWriteBack();
    this.#writeBack = new WriteBack(this.#memory);
    void this.#watch(this.#writeBack);
  }

  close(): void {
    this.#look();
    this.#writeBack.forget();
  }
}

export class FailedFiles {
  readonly #open = new Map<string, BdevFile>();
  /** Without a bdev. */
  #left: FailedFile[] = [];
  readonly #tell: (failure: FailedFile) => void;
  /** Called when `list` gives something else than before. */
  onChange: () => void = () => {};

  /** `tell` is called once for each failure. */
  constructor(tell: (failure: FailedFile) => void) {
    this.#tell = tell;
  }

  /** Files that failed before, as `list` gave them. Before there are bdevs. */
  restore(files: readonly FailedFile[]): void {
    this.#left.push(...files);
  }

  /** All files that failed and were not opened again since. */
  list(): readonly FailedFile[] {
    return [...[...this.#open.values()].flatMap(({ failure }) => failure ?? []), ...this.#left];
  }

  /** One more bdev is on this file. */
  take(identity: FileIdentity): BdevFile {
    const key = keyOf(identity);
    let file = this.#open.get(key);
    if (file === undefined) {
      const known = this.#left.find((left) => isSameFile(left, identity));
      this.#left = this.#left.filter((left) => left !== known);
      file = new BdevFile(identity, known, (failure) => {
        this.#tell(failure);
        this.onChange();
      });
      this.#open.set(key, file);
    }
    file.users += 1;
    return file;
  }

  /** It was opened again: what is under way with the descriptors before goes by the word before. */
  renew(file: BdevFile): void {
    file.renew();
    this.onChange();
  }

  /** One less. */
  give(file: BdevFile): void {
    file.users -= 1;
    if (file.users === 0) {
      this.#open.delete(file.key);
      file.close();
      this.#left.push(...(file.failure === undefined ? [] : [file.failure]));
    }
  }
}
