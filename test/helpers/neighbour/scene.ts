/**
 * Where a trouble plays: it makes bdevs, subsystems and clients here, so that they can be removed by JSON-RPC while it lasts, and nothing
 * of it is left afterwards.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { NvmeClient, type NvmeClientOptions } from '../../../src/client/nvme.ts';
import { VfioClient } from '../../../src/client/vfio.ts';
import { native } from '../../../src/native/index.ts';
import type { RpcError } from '../../../src/rpc/protocol.ts';
import { FuseDisk, type FuseOptions } from '../fuse.ts';
import type { TargetProcess } from '../target-process.ts';
import { type Configuration, type Served, type Stage, serve } from './stage.ts';

const MIB = 1024 * 1024;
const LBA_BYTES = 512;

/** Bdevs and subsystems have names that no other scene of the process has. */
let scenes = 0;

export class Scene {
  readonly configuration: Configuration;
  readonly target: TargetProcess;
  readonly #id: number;
  #count = 0;
  readonly #bdevs: { readonly name: string; readonly module: string }[] = [];
  readonly #served: Served[] = [];
  readonly #teardowns: (() => unknown)[] = [];

  constructor({ configuration, target }: Stage) {
    this.configuration = configuration;
    this.target = target;
    scenes += 1;
    this.#id = scenes;
  }

  #name(kind: string): string {
    this.#count += 1;
    return `t${this.#id}-${kind}${this.#count}`;
  }

  call(method: string, params?: unknown): Promise<unknown> {
    return this.target.call(method, params);
  }

  /** Done when the trouble is over, in the reverse order. */
  defer(fn: () => unknown): void {
    this.#teardowns.push(fn);
  }

  // --- bdevs: each resolves with its name -----------------------------------------------------------------------

  async malloc(bytes = MIB): Promise<string> {
    const name = this.#name('ram');
    const size = { num_blocks: bytes / LBA_BYTES, block_size: LBA_BYTES };
    await this.call('bdev_malloc_create', { name, ...size });
    this.#bdevs.push({ name, module: 'malloc' });
    return name;
  }

  /** Over RAM; errors are the caller's to inject. */
  async error(): Promise<string> {
    const base_name = await this.malloc();
    await this.call('bdev_error_create', { base_name });
    return `EE_${base_name}`;
  }

  /** Over RAM, so much slower. Milliseconds. */
  async delay(ms: number): Promise<string> {
    const base_bdev_name = await this.malloc();
    const name = this.#name('slow');
    const us = 1000 * ms;
    await this.call('bdev_delay_create', {
      ...{ base_bdev_name, name, avg_read_latency: us, p99_read_latency: us },
      ...{ avg_write_latency: us, p99_write_latency: us },
    });
    return name;
  }

  async file(filename: string): Promise<string> {
    const name = this.#name('file');
    await this.call('bdev_uring_create', { name, filename, block_size: LBA_BYTES });
    this.#bdevs.push({ name, module: 'uring' });
    return name;
  }

  /** A sparse file on the target's disk. */
  image(bytes = MIB): string {
    const path = join(this.target.folder, `${this.#name('image')}.img`);
    writeFileSync(path, '');
    truncateSync(path, bytes);
    return path;
  }

  /** Files whose requests can be held. */
  fuse(options: FuseOptions = {}): Promise<FuseDisk> {
    return FuseDisk.mount({ teardown: (fn) => this.defer(fn) }, MIB, options);
  }

  // --- VMs ------------------------------------------------------------------------------------------------------

  async serve(...bdevs: string[]): Promise<Served> {
    const served = await serve(this.target, this.#name('vm'), bdevs);
    this.#served.push(served);
    return served;
  }

  folder(): string {
    const path = join(this.target.folder, this.#name('folder'));
    mkdirSync(path);
    return path;
  }

  /** A guest's driver, which hangs up when the trouble is over. */
  async connect({ socket }: Served, options: NvmeClientOptions = {}): Promise<NvmeClient> {
    const shadow = this.configuration.trapped && { shadowDoorbells: true };
    const client = await NvmeClient.connect(socket, {
      memoryBytes: 2 * MIB,
      ...shadow,
      ...options,
    });
    this.defer(() => client.close());
    return client;
  }

  /** A VMM that has agreed on a version. */
  async vmm({ socket }: Served): Promise<VfioClient> {
    const vfio = VfioClient.connect(socket);
    this.defer(() => vfio.close());
    await vfio.version();
    return vfio;
  }

  /** A connection that has sent nothing. */
  dial({ socket }: Served): number {
    return native.socketConnect(socket);
  }

  // --- the end --------------------------------------------------------------------------------------------------

  /** Takes everything away by JSON-RPC, and sees that it is gone for all who ask. */
  async remove(): Promise<void> {
    for (const { nqn, socket } of this.#served.splice(0)) {
      await this.call('nvmf_delete_subsystem', { nqn });
      const subsystems = (await this.call('nvmf_get_subsystems')) as { nqn: string }[];
      assert.ok(!subsystems.some((subsystem) => subsystem.nqn === nqn), `${nqn} is still there`);
      assert.ok(!existsSync(socket), `${socket} is still there`);
    }
    // Those on top of others go with them.
    for (const { name, module } of this.#bdevs.splice(0)) {
      try {
        await this.call(`bdev_${module}_delete`, { name });
      } catch (error) {
        // The trouble may have been that it is deleted.
        assert.equal((error as RpcError).code, -19, `${name}: ${(error as Error).message}`);
      }
      const bdevs = (await this.call('bdev_get_bdevs')) as { name: string }[];
      assert.ok(!bdevs.some((bdev) => bdev.name === name), `${name} is still there`);
    }
  }

  /** Hangs up, unmounts. */
  async close(): Promise<void> {
    for (const fn of this.#teardowns.splice(0).reverse()) {
      await fn();
    }
  }
}
