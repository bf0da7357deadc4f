/**
 * A file or device as the kernel has it: what reads return, what is on stable storage, and its moods. A write-back that fails loses what it was
 * to write, tells each open descriptor once, and leaves the pages clean, as Linux does.
 */
import type { Random } from '../helpers/random.ts';

export const SECTOR = 512;
export const SECTOR_WORDS = SECTOR / 4;

/** How a disk is: it answers; late; not at all; with errors. */
export const MOODS = ['fine', 'slow', 'hung', 'failing'] as const;
export type Mood = (typeof MOODS)[number];

/** Local: through the page cache, and the submission itself may carry it out. Blocking: only threads of the kernel may. */
export type DiskKind = 'local' | 'direct' | 'blocking';

const EIO = 5;
const ENOSPC = 28;

export class SimDisk {
  readonly kind: DiskKind;
  readonly sectors: number;
  readonly #random: Random;
  readonly #cache: Uint8Array;
  readonly #stable: Int32Array;
  readonly #dirty: Set<number> = new Set();
  mood: Mood = 'fine';
  /** It once failed, and its commands may have. */
  failed = false;
  /** Write-backs that failed. */
  #writeBackErrors = 0;
  /** Operations that wait for the disk to answer again. */
  readonly held: (() => void)[] = [];

  constructor(kind: DiskKind, sectors: number, random: Random) {
    this.kind = kind;
    this.sectors = sectors;
    this.#random = random;
    const cache = new ArrayBuffer(sectors * SECTOR);
    this.#cache = new Uint8Array(cache);
    this.#stable = new Int32Array(sectors * SECTOR_WORDS);
  }

  /** What one descriptor has been told of failures. */
  open(): OpenDisk {
    return { disk: this, told: this.#writeBackErrors };
  }

  setMood(mood: Mood): void {
    this.mood = mood;
    this.failed ||= mood === 'failing';
    if (mood !== 'hung') {
      for (const resume of this.held.splice(0)) {
        resume();
      }
    }
  }

  /** -errno, or 0 if the operation is to be carried out. */
  error(): number {
    return this.mood === 'failing' && this.#random.chance(0.7)
      ? -this.#random.pick([EIO, ENOSPC])
      : 0;
  }

  read(offset: number, into: Uint8Array): void {
    into.set(this.#cache.subarray(offset, offset + into.length));
  }

  write(offset: number, data: Uint8Array): void {
    this.#cache.set(data, offset);
    for (let at = offset; at < offset + data.length; at += SECTOR) {
      this.#dirty.add(Math.floor(at / SECTOR));
    }
    this.#dirty.add(Math.floor((offset + data.length - 1) / SECTOR));
  }

  /** The range becomes durable. */
  store(offset: number, length: number): void {
    const first = Math.floor(offset / SECTOR);
    for (let sector = first; sector < Math.ceil((offset + length) / SECTOR); sector++) {
      this.#store(sector);
    }
  }

  #store(sector: number): void {
    const bytes = this.#cache.subarray(sector * SECTOR, (sector + 1) * SECTOR);
    new Uint8Array(this.#stable.buffer).set(bytes, sector * SECTOR);
    this.#dirty.delete(sector);
  }

  /** Pages are written back whenever the kernel likes; if the disk fails, they are lost. */
  writeBack(): void {
    const fails = this.mood === 'failing';
    for (const sector of [...this.#dirty]) {
      if (!this.#random.chance(0.5)) {
        continue;
      }
      if (fails) {
        this.#dirty.delete(sector);
        this.#writeBackErrors += 1;
      } else {
        this.#store(sector);
      }
    }
  }

  /** What is dirty now becomes durable, or is lost. 0 or -errno. */
  sync(file: OpenDisk): number {
    if (this.mood === 'failing' && this.#dirty.size > 0 && this.#random.chance(0.7)) {
      this.#dirty.clear();
      this.#writeBackErrors += 1;
    } else {
      for (const sector of [...this.#dirty]) {
        this.#store(sector);
      }
    }
    const told = file.told === this.#writeBackErrors;
    file.told = this.#writeBackErrors;
    return told ? 0 : -EIO;
  }

  /** Words of a sector as a read would see it, and as it is on stable storage. */
  seen(sector: number): Int32Array {
    return new Int32Array(this.#cache.buffer, sector * SECTOR, SECTOR_WORDS);
  }

  stable(sector: number): Int32Array {
    return this.#stable.subarray(sector * SECTOR_WORDS, (sector + 1) * SECTOR_WORDS);
  }
}

export interface OpenDisk {
  readonly disk: SimDisk;
  told: number;
}
