/** The bdevs of a bench, made and served when they are first needed. */
import { closeSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { fillDisk, type Load } from './load.ts';
import { type BdevKind, MIB } from './scenarios.ts';
import type { BenchTarget } from './target.ts';

export const RAM_BYTES = 256 * MIB;
const FILE_BYTES = 512 * MIB;
const BLOCK_SIZE = 512;

export class Disks {
  readonly #target: BenchTarget;
  readonly #file: string;
  readonly #sockets = new Map<string, string>();
  #count = 0;
  #fileMade = false;

  /** `file`: where the file bdevs have their file, which is removed in the end. */
  constructor(target: BenchTarget, file: string) {
    this.#target = target;
    this.#file = file;
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
      case 'direct':
        this.#makeFile();
        await rpc('bdev_uring_create', {
          name,
          filename: this.#file,
          block_size: BLOCK_SIZE,
          direct: kind === 'direct',
        });
        break;
    }
    return name;
  }

  /** Written, not sparse: a hole is read without the disk. */
  #makeFile(): void {
    if (this.#fileMade) {
      return;
    }
    mkdirSync(dirname(this.#file), { recursive: true });
    // Somebody's file is not for us to overwrite.
    const fd = openSync(this.#file, 'wx');
    this.#fileMade = true;
    const chunk = Buffer.alloc(MIB, 0x5a);
    for (let at = 0; at < FILE_BYTES; at += MIB) {
      writeSync(fd, chunk);
    }
    closeSync(fd);
  }

  get file(): string {
    return this.#file;
  }

  /** Removes the file. */
  clear(): void {
    if (this.#fileMade) {
      rmSync(this.#file, { force: true });
    }
  }
}
