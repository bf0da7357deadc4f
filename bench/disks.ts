/** The bdevs of a bench, made and served when they are first needed. */
import { closeSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { fillDisk, type Load } from './load.ts';
import { type BdevKind, MIB } from './scenarios.ts';
import type { BenchTarget } from './target.ts';

export const RAM_BYTES = 256 * MIB;
const FILE_BYTES = 512 * MIB;
const BLOCK_SIZE = 512;
/** O_DIRECT may want whole blocks of the disk below. */
const DIRECT_BLOCK_SIZE = 4096;

export class Disks {
  readonly #target: BenchTarget;
  readonly #path: string;
  readonly #made = new Set<string>();
  readonly #sockets = new Map<string, string>();
  #count = 0;

  readonly #foreign: boolean;

  /**
   * `path`: where the file bdevs have their files, which are removed in the end. `foreign`: the target knows only SPDK's methods, of which
   * bdev_aio_create goes past the page cache.
   */
  constructor(target: BenchTarget, path: string, foreign = false) {
    this.#target = target;
    this.#path = path;
    this.#foreign = foreign;
  }

  /** The file of the bdevs of a kind: what goes past the page cache has one of its own. */
  file(kind: BdevKind): string {
    return kind === 'direct' ? `${this.#path}.direct` : this.#path;
  }

  /** The sockets that a load needs: of as many controllers, each with as many namespaces. */
  async sockets(kind: BdevKind, load: Load): Promise<string[]> {
    const { controllers = 1, namespaces = 1 } = load;
    const sockets: string[] = [];
    for (let i = 0; i < controllers; i++) {
      const key = `${kind} ${namespaces} ${i}`;
      let socket = this.#sockets.get(key);
      if (socket === undefined) {
        const bdevs: string[] = [];
        for (let n = 0; n < namespaces; n++) {
          bdevs.push(await this.#create(kind));
        }
        socket = await this.#target.serve(...bdevs);
        if (kind === 'ram') {
          await fillDisk(socket, RAM_BYTES);
        }
        this.#sockets.set(key, socket);
      }
      sockets.push(socket);
    }
    return sockets;
  }

  async #create(kind: BdevKind): Promise<string> {
    this.#count += 1;
    const name = `${kind}${this.#count}`;
    const { rpc } = this.#target;
    switch (kind) {
      case 'null':
        await rpc('bdev_null_create', { name, num_blocks: 1 << 28, block_size: BLOCK_SIZE });
        break;
      case 'ram':
        await rpc('bdev_malloc_create', {
          name,
          num_blocks: RAM_BYTES / BLOCK_SIZE,
          block_size: BLOCK_SIZE,
        });
        break;
      case 'file':
      case 'direct': {
        const direct = kind === 'direct';
        const filename = this.file(kind);
        this.#make(filename);
        const block_size = direct ? DIRECT_BLOCK_SIZE : BLOCK_SIZE;
        await (this.#foreign && direct
          ? rpc('bdev_aio_create', { name, filename, block_size })
          : rpc('bdev_uring_create', { name, filename, block_size, direct }));
        break;
      }
    }
    return name;
  }

  /** Written, not sparse: a hole is read without the disk. */
  #make(file: string): void {
    if (this.#made.has(file)) {
      return;
    }
    mkdirSync(dirname(file), { recursive: true });
    // Somebody's file is not for us to overwrite.
    const fd = openSync(file, 'wx');
    this.#made.add(file);
    const chunk = Buffer.alloc(MIB, 0x5a);
    for (let at = 0; at < FILE_BYTES; at += MIB) {
      writeSync(fd, chunk);
    }
    closeSync(fd);
  }

  /** Removes the files. */
  clear(): void {
    for (const file of this.#made) {
      rmSync(file, { force: true });
    }
  }
}
