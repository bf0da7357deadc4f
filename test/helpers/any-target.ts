/**
 * The target that a conformance test is about: one in this process; or, with TARGET_RPC, whichever answers SPDK's JSON-RPC at that socket.
 * There the tests make bdevs, subsystems and listeners of their own, whose sockets are in folders below TARGET_SOCKET.
 */
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NvmeClient, type NvmeClientOptions } from '../../src/client/nvme.ts';
import {
  DEFAULT_NAMESPACES,
  MAX_IO_QUEUE_PAIRS,
  MAX_QUEUE_ENTRIES,
  MAX_TRANSFER_BYTES,
} from '../../src/limits.ts';
import { callRpc } from '../../src/rpc/client.ts';
import { RpcError } from '../../src/rpc/protocol.ts';
import { type Served, type Test, TestTarget, type TestTargetOptions } from './target.ts';

const { TARGET_RPC, TARGET_SOCKET = tmpdir() } = process.env;

/** What a test needs that looks into the target, or has a transport of its own, or is about what only this target has. Of tap: `skip`. */
export const onlyOurs = TARGET_RPC !== undefined && 'needs the target in its own process';

export type AnyTarget = Pick<TestTarget, 'malloc' | 'file' | 'image' | 'serve' | 'connect'>;

/** Without `onlyOurs` it is to be asked for no transport. What was made is deleted at the end of the test. */
export function startTarget(t: Test, options: TestTargetOptions = {}): Promise<AnyTarget> {
  return TARGET_RPC === undefined ? TestTarget.start(t, options) : RpcTarget.start(t, TARGET_RPC);
}

let count = 0;

class RpcTarget implements AnyTarget {
  readonly #test: Test;
  readonly #rpc: string;
  readonly #folder: string;

  static async start(t: Test, rpc: string): Promise<RpcTarget> {
    const folder = mkdtempSync(join(TARGET_SOCKET, 'db-'));
    t.teardown(() => rmSync(folder, { recursive: true, force: true }));
    const target = new RpcTarget(t, rpc, folder);
    const params = {
      trtype: 'VFIOUSER',
      max_queue_depth: MAX_QUEUE_ENTRIES,
      max_io_qpairs_per_ctrlr: MAX_IO_QUEUE_PAIRS,
      max_io_size: MAX_TRANSFER_BYTES,
    };
    await target.#call('nvmf_create_transport', params).catch((error: unknown) => {
      // There is one, and that cannot be deleted.
      if (!(error instanceof RpcError) || !/already exists/.test(error.message)) {
        throw error;
      }
    });
    return target;
  }

  private constructor(t: Test, rpc: string, folder: string) {
    this.#test = t;
    this.#rpc = rpc;
    this.#folder = folder;
  }

  #call(method: string, params: object): Promise<unknown> {
    return callRpc(this.#rpc, method, params);
  }

  /** Of this process, and of no other that tests the same target. */
  #name(kind: string): string {
    count += 1;
    return `${kind}-${process.pid}-${count}`;
  }

  async #bdev(module: 'malloc' | 'aio', params: object): Promise<string> {
    const name = this.#name(module);
    await this.#call(`bdev_${module}_create`, { name, ...params });
    this.#test.teardown(() => this.#call(`bdev_${module}_delete`, { name }));
    return name;
  }

  malloc(bytes: number, block_size = 512): Promise<string> {
    return this.#bdev('malloc', { block_size, num_blocks: bytes / block_size });
  }

  /** `direct`: as the target has it by itself. */
  file(
    filename: string,
    { readonly = false, blockSize = 512 }: Parameters<TestTarget['file']>[1] = {},
  ): Promise<string> {
    const params = { filename, block_size: blockSize, ...(readonly && { readonly }) };
    return this.#bdev('aio', params);
  }

  image(bytes: number): string {
    const path = join(this.#folder, `${this.#name('image')}.img`);
    writeFileSync(path, '');
    truncateSync(path, bytes);
    return path;
  }

  async serve(...bdevs: string[]): Promise<Served> {
    const name = this.#name('s');
    const nqn = `nqn.2026-11.io.doorbell:${name}`;
    await this.#call('nvmf_create_subsystem', {
      nqn,
      allow_any_host: true,
      serial_number: name.slice(-20),
      max_namespaces: Math.max(bdevs.length, DEFAULT_NAMESPACES),
    });
    this.#test.teardown(() => this.#call('nvmf_delete_subsystem', { nqn }));
    for (const bdev_name of bdevs) {
      await this.#call('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name } });
    }
    const traddr = join(this.#folder, name);
    mkdirSync(traddr);
    const listen_address = { trtype: 'VFIOUSER', traddr };
    await this.#call('nvmf_subsystem_add_listener', { nqn, listen_address });
    return { nqn, socket: join(traddr, 'cntrl') };
  }

  async connect({ socket }: Served, options: NvmeClientOptions = {}): Promise<NvmeClient> {
    const client = await NvmeClient.connect(socket, options);
    this.#test.teardown(() => client.close());
    return client;
  }
}
