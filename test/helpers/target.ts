/**
 * A whole target in this process: reactors on threads of their own that sleep when idle, bdevs, and listeners on sockets in a folder that
 * goes with the test.
 */
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Logger, pino } from 'pino';
import { NvmeClient, type NvmeClientOptions } from '../../src/client/nvme.ts';
import {
  DEFAULT_NAMESPACES,
  MAX_IO_QUEUE_PAIRS,
  MAX_QUEUE_ENTRIES,
  MAX_TRANSFER_BYTES,
} from '../../src/limits.ts';
import { native } from '../../src/native/index.ts';
import { ReactorPool } from '../../src/reactor/pool.ts';
import { Endpoint } from '../../src/target/endpoint.ts';
import { Target } from '../../src/target/target.ts';
import type { TransportOptions } from '../../src/target/types.ts';

/** What tap's `t` has that is used here. */
export interface Test {
  teardown(fn: () => unknown): void;
}

export const MIB = 1024 * 1024;

const TRANSPORT: TransportOptions = {
  maxQueueDepth: MAX_QUEUE_ENTRIES,
  maxIoQpairsPerCtrlr: MAX_IO_QUEUE_PAIRS,
  maxIoSize: MAX_TRANSFER_BYTES,
  disableMappableBar0: false,
  mapFileMemory: false,
  requireSharedMemory: false,
  shadowDoorbells: false,
  adaptiveInterrupts: true,
};

export interface TestTargetOptions {
  readonly reactors?: number;
  readonly transport?: Partial<TransportOptions>;
  readonly log?: Logger;
  /** Longest sleep of an idle reactor. Microseconds. */
  readonly maxSleepUs?: number;
}

/** Where a subsystem is served. */
export interface Served {
  readonly nqn: string;
  readonly socket: string;
}

export class TestTarget {
  readonly target: Target;
  readonly pool: ReactorPool;
  /** For disk images; sockets are in folders below. */
  readonly folder: string;
  readonly #test: Test;
  #count = 0;

  /** Stopped at the end of the test. */
  static async start(t: Test, options: TestTargetOptions = {}): Promise<TestTarget> {
    const { reactors = 1, transport = {}, maxSleepUs = 100 } = options;
    const { log = pino({ level: 'silent' }) } = options;
    const folder = mkdtempSync(join(tmpdir(), 'db-'));
    t.teardown(() => rmSync(folder, { recursive: true, force: true }));
    const cpus = native.getAffinity();
    const cores = Array.from(
      { length: reactors },
      (_, i) => cpus[(cpus.length - 1 + i) % cpus.length],
    );
    const pool = await ReactorPool.start({ cores, spinUs: 0, maxSleepUs, log });
    t.teardown(() => pool.stop());
    const target = new Target({
      log,
      reactors: pool,
      listen: (listener) => Endpoint.listen({ ...listener, reactors: pool, log }),
    });
    t.teardown(() => target.close());
    await target.createTransport({ options: { ...TRANSPORT, ...transport }, report: {} });
    return new TestTarget(t, target, pool, folder);
  }

  private constructor(t: Test, target: Target, pool: ReactorPool, folder: string) {
    this.#test = t;
    this.target = target;
    this.pool = pool;
    this.folder = folder;
  }

  #name(kind: string): string {
    this.#count += 1;
    return `${kind}${this.#count}`;
  }

  /** A bdev in memory. Resolves with its name. */
  async malloc(bytes: number, blockSize = 512): Promise<string> {
    const name = this.#name('malloc');
    await this.target.createMalloc({ name }, { blockSize, numBlocks: bytes / blockSize });
    return name;
  }

  /** A bdev that discards what is written. */
  async null(bytes: number, blockSize = 512): Promise<string> {
    const name = this.#name('null');
    await this.target.createNull({ name }, { blockSize, numBlocks: bytes / blockSize });
    return name;
  }

  /** A bdev over a file that is there. */
  async file(
    filename: string,
    options: { direct?: boolean; readonly?: boolean; blockSize?: number } = {},
  ): Promise<string> {
    const name = this.#name('file');
    await this.target.createFile({ name }, { module: 'uring', filename, ...options });
    return name;
  }

  /** The same, on a file system that is taken for a disk of this machine: what hangs there holds on to the memory of its guest. */
  async pinning(filename: string): Promise<string> {
    const name = await this.file(filename);
    Object.assign(this.target.bdevs.get(name), { ownBuffers: false });
    return name;
  }

  /** A sparse file of this size in the folder. */
  image(bytes: number): string {
    const path = join(this.folder, `${this.#name('image')}.img`);
    writeFileSync(path, '');
    truncateSync(path, bytes);
    return path;
  }

  /** A subsystem with these bdevs as namespaces 1, 2, …, served on a socket. */
  async serve(...bdevs: string[]): Promise<Served> {
    const name = this.#name('s');
    const nqn = `nqn.2026-11.io.doorbell:${name}`;
    await this.target.createSubsystem({
      nqn,
      allowAnyHost: true,
      ...(bdevs.length > DEFAULT_NAMESPACES && { maxNamespaces: bdevs.length }),
    });
    for (const bdev of bdevs) {
      await this.target.addNamespace(nqn, bdev, {});
    }
    return this.listen(nqn);
  }

  /** One more socket of a subsystem. */
  async listen(nqn: string): Promise<Served> {
    const traddr = join(this.folder, this.#name('l'));
    mkdirSync(traddr);
    const address = { traddr, trsvcid: '', adrfam: 'unknown' };
    return { nqn, socket: await this.target.addListener(nqn, address) };
  }

  /** A driver that is connected, and hangs up at the end of the test. */
  async connect({ socket }: Served, options: NvmeClientOptions = {}): Promise<NvmeClient> {
    const client = await NvmeClient.connect(socket, options);
    this.#test.teardown(() => client.close());
    return client;
  }
}
