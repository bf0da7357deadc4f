/**
 * One client with its guest: the model host, and the part of main that serves it (the real `IoQueues`, in place of what messages and
 * registers would call). Each of its changes is an operation that main answers when it is done.
 */

import { GuestMemory } from '../../src/memory/guest.ts';
import { NO_COALESCING } from '../../src/nvme/features/coalescing.ts';
import { NamespaceState } from '../../src/nvme/namespace-state.ts';
import type { NamespaceDescriptor, NvmeEvent } from '../../src/nvme/plane/messages.ts';
import { IoQueues } from '../../src/target/queues.ts';
import type { SimBdev } from './bdevs.ts';
import { Commands } from './commands.ts';
import { HostMemory, Pages, REGION_BYTES } from './host-memory.ts';
import { HostQueues, type HostSq, PAIRS } from './host-queues.ts';
import { simSystem } from './threads.ts';
import type { World } from './world.ts';

const VECTORS = 3;
const MAX_TRANSFER = 32 * 1024;
const NO_BDEV = -1;

export class Host {
  readonly id: number;
  readonly memory: HostMemory;
  readonly commands: Commands;
  readonly queues: HostQueues;
  readonly trapped: boolean;
  readonly #world: World;
  readonly #main: GuestMemory;
  readonly #doorbells = new Int32Array(new SharedArrayBuffer(4096));
  readonly io: IoQueues;
  readonly #rows = new Map<number, number>();
  readonly #controller: number;
  readonly #refused: number;
  #writeThrough = false;
  readonly #fds: number[];
  readonly #masked = new Set<number>();
  #shadow = false;
  /** Its controller has failed, and waits for a reset. */
  failed = false;
  resetting = false;
  gone = false;
  /** What it does that excludes more of its kind. */
  readonly busy = new Set<'memory' | 'namespaces' | 'move' | 'write-cache'>();
  /** Told of doorbells outside their queue. */
  badDoorbells = 0;

  constructor(world: World, id: number) {
    const { random, kernel, pool } = world;
    this.#world = world;
    this.id = id;
    this.memory = new HostMemory(kernel.memory, id, random);
    this.#main = new GuestMemory(simSystem(kernel));
    this.commands = new Commands(world, this.memory);
    const host = this;
    this.queues = new HostQueues(this.memory, this.commands, random, {
      get shadow() {
        return host.#shadow;
      },
      ring: (index, value) => this.#ring(index, value),
    });
    this.trapped = random.chance(0.3);
    this.#fds = Array.from({ length: VECTORS }, (_, vector) =>
      kernel.openEvent(() => this.queues.interrupted.add(vector)),
    );
    this.#controller = pool.register({
      told: (message) => this.#told(message as NvmeEvent),
      reactorLost: (reactor, left) => {
        if (this.io.reactorLost(reactor, left)) {
          this.failed = true;
        }
      },
    });
    this.#refused = pool.rows.take({ controller: this.#controller, nsid: 0, bdev: NO_BDEV });
    this.io = new IoQueues({
      controller: this.#controller,
      pool,
      log: world.log,
      doorbells: this.#doorbells.buffer as SharedArrayBuffer,
      trapped: this.trapped,
      adaptiveInterrupts: random.chance(0.5),
      adminSeen: new SharedArrayBuffer(16),
      memory: this.#main,
      row: this.#refused,
      maxTransferBytes: MAX_TRANSFER,
      copyFormats: () => 3,
      writeThrough: () => this.#writeThrough,
      coalescing: () => NO_COALESCING,
      namespaces: () => this.#describeAll(),
      eventfds: () => this.#fds.map((fd, vector) => (this.#masked.has(vector) ? -1 : fd)),
      lost: () => {
        this.failed = true;
      },
    });
    for (const bdev of world.bdevs) {
      if (
        this.commands.namespaces.size < 3 &&
        (random.chance(0.5) || this.commands.namespaces.size === 0)
      ) {
        this.#setNamespace(this.commands.namespaces.size + 1, bdev);
      }
    }
    for (const region of this.memory.regions) {
      this.#main.add(this.memory.map(region));
      region.mapped = true;
    }
    this.io.watchAdmin(true);
  }

  #setNamespace(nsid: number, bdev: SimBdev | undefined, blocks = bdev?.numBlocks ?? 0): void {
    this.commands.namespaces.set(nsid, {
      bdev,
      next: undefined,
      changing: false,
      blocks,
      most: blocks,
    });
  }

  #describeAll(): NamespaceDescriptor[] {
    return [...this.commands.namespaces].flatMap(([nsid, { bdev, next, changing }]) => {
      const now = changing ? next : bdev;
      return now === undefined ? [] : [this.#describe(nsid, now)];
    });
  }

  #describe(nsid: number, bdev: SimBdev): NamespaceDescriptor {
    const { pool } = this.#world;
    const use = { controller: this.#controller, nsid, bdev: bdev.descriptor.index };
    const row = this.#rows.get(nsid) ?? pool.rows.take(use);
    this.#rows.set(nsid, row);
    const { descriptor, limits } = bdev;
    const access = new NamespaceState().access(descriptor.readonly, undefined);
    return { nsid, row, limits, access, bdev: descriptor };
  }

  #told(event: NvmeEvent): void {
    if (event.kind === 'bad-doorbell') {
      this.badDoorbells += 1;
    }
  }

  /** A real doorbell: memory that both see, or a message. */
  #ring(index: number, value: number): void {
    if (!this.trapped) {
      Atomics.store(this.#doorbells, index, value);
      return;
    }
    this.#world.toMain(() => {
      if (!this.gone) {
        Atomics.store(this.#doorbells, index, value);
        this.io.wake(index >> 1);
      }
    });
  }

  // --- queues -----------------------------------------------------------------------------------------------------------

  async createPair(qid: number): Promise<void> {
    const { queues, world } = { queues: this.queues, world: this.#world };
    const shared = world.random.chance(0.25) ? [...queues.cqs.values()][0] : undefined;
    const cq = shared ?? queues.newCq(qid);
    const memory = (page: number): number => this.memory.iova(page);
    if (shared === undefined) {
      queues.cqs.set(qid, cq);
      const { size, interrupts, vector } = cq;
      const created = await this.io
        .createCq({ qid, size, iova: memory(cq.page), interrupts, vector })
        .catch(() => 1);
      if (created !== 0) {
        queues.cqs.delete(qid);
        return;
      }
    }
    if (queues.cqs.get(cq.qid) !== cq) {
      return;
    }
    const sq = queues.newSq(qid, cq);
    cq.users += 1;
    const status = await this.io
      .createSq({ qid, size: sq.size, iova: memory(sq.page), cqid: cq.qid })
      .catch(() => 1);
    if (status !== 0) {
      cq.users -= 1;
    }
    if (status === 0 && queues.cqs.get(cq.qid) === cq && !this.resetting) {
      queues.sqs.set(qid, sq);
    }
  }

  async deletePair(sq: HostSq): Promise<void> {
    sq.closing = true;
    for (const command of sq.commands.values()) {
      command.mayFail = true;
    }
    const status = await this.io.deleteSq(sq.qid);
    if (status !== 0 || this.queues.sqs.get(sq.qid) !== sq) {
      return;
    }
    this.queues.deletedSq(sq.qid);
    const { cq } = sq;
    cq.users -= 1;
    if (cq.users === 0 && !this.resetting) {
      this.queues.cqs.delete(cq.qid);
      await this.io.deleteCq(cq.qid);
    }
  }

  /** CC.EN = 0. */
  async reset(): Promise<void> {
    this.resetting = true;
    try {
      await this.io.reset();
      this.queues.drop();
      this.#shadow = false;
      this.failed = false;
    } catch {
      // A reactor could not: the controller stays failed.
    } finally {
      this.resetting = false;
    }
  }

  /** A queue may be made under this id. */
  get freeQid(): number | undefined {
    const { sqs, cqs } = this.queues;
    for (let qid = 1; qid <= PAIRS; qid++) {
      if (!sqs.has(qid) && !cqs.has(qid)) {
        return qid;
      }
    }
    return undefined;
  }

  /** As a driver does: before there are queues. */
  async setShadow(): Promise<void> {
    this.memory.words(Pages.SHADOW).fill(0);
    this.memory.words(Pages.SHADOW + 1).fill(0);
    const pages = {
      doorbells: this.memory.iova(Pages.SHADOW),
      eventIdx: this.memory.iova(Pages.SHADOW + 1),
    };
    await this.io.setShadow(pages);
    this.#shadow = true;
  }

  get shadowed(): boolean {
    return this.#shadow;
  }

  // --- memory -----------------------------------------------------------------------------------------------------------

  async unmap(index: number): Promise<void> {
    const region = this.memory.regions[index];
    region.changing = true;
    // Whatever is under way may be about this memory.
    for (const command of this.queues.outstanding) {
      const pages = [...command.pages, ...(command.list === undefined ? [] : [Pages.LISTS])];
      if (pages.some((page) => this.memory.regionOf(page) === region) || index < 3) {
        command.mayFail = true;
      }
    }
    this.#main.remove(region.iova, region.iova + REGION_BYTES);
    try {
      await this.io.unmap(region.iova, REGION_BYTES);
    } catch {
      this.failed = true;
    }
    this.memory.unmapped(region);
    region.changing = false;
  }

  async map(index: number): Promise<void> {
    const region = this.memory.regions[index];
    region.changing = true;
    const mapped = this.memory.map(region);
    this.#main.add(mapped);
    try {
      await this.io.map(mapped);
      region.mapped = true;
    } catch {
      this.#main.remove(region.iova, region.iova + REGION_BYTES);
      this.memory.unmapped(region);
    }
    region.changing = false;
  }

  // --- interrupts -------------------------------------------------------------------------------------------------------

  async mask(vector: number, on: boolean): Promise<void> {
    if (on) {
      this.#masked.add(vector);
    } else {
      this.#masked.delete(vector);
    }
    await this.io.eventfdsChanged();
  }

  isMasked(vector: number): boolean {
    return this.#masked.has(vector);
  }

  /** Another eventfd takes the place of a vector's: the one before is closed when it is not signalled any more. */
  async reconnect(vector: number): Promise<void> {
    const { kernel } = this.#world;
    const before = this.#fds[vector];
    this.#fds[vector] = kernel.openEvent(() => this.queues.interrupted.add(vector));
    await this.io.eventfdsChanged();
    kernel.close(before);
  }

  // --- namespaces -------------------------------------------------------------------------------------------------------

  /** Adds a namespace, replaces it, or (without a bdev) removes it. */
  async changeNamespace(nsid: number, bdev: SimBdev | undefined): Promise<void> {
    const blocks = bdev?.numBlocks ?? 0;
    const before = this.commands.namespaces.get(nsid)!;
    before.changing = true;
    before.next = bdev;
    for (const command of this.queues.outstanding) {
      if (command.nsid === nsid) {
        this.commands.unsettle(command, bdev);
      }
    }
    if (bdev === undefined) {
      await this.io.removeNamespace(nsid);
    } else {
      await this.io.addNamespace(this.#describe(nsid, bdev));
    }
    this.#setNamespace(nsid, bdev, blocks);
  }

  async resize(nsid: number): Promise<void> {
    const namespace = this.commands.namespaces.get(nsid)!;
    const { bdev } = namespace;
    if (bdev === undefined) {
      return;
    }
    const before = namespace.blocks;
    namespace.blocks = Math.min(before, bdev.numBlocks);
    namespace.most = Math.max(before, bdev.numBlocks);
    for (const command of this.queues.outstanding) {
      if (command.nsid === nsid) {
        this.commands.unsettle(command, bdev);
      }
    }
    await this.io.addNamespace(this.#describe(nsid, bdev));
    namespace.blocks = bdev.numBlocks;
    namespace.most = bdev.numBlocks;
  }

  async setWriteThrough(on: boolean): Promise<void> {
    if (!on) {
      this.commands.writeThrough = false;
      for (const command of this.queues.outstanding) {
        command.durable = command.fua;
      }
    }
    this.#writeThrough = on;
    await this.io.setWriteThrough(on);
    this.commands.writeThrough = on;
  }

  // --- the end ----------------------------------------------------------------------------------------------------------

  /** The client is gone: its memory is nobody's when this resolves. */
  async leave(): Promise<void> {
    this.gone = true;
    this.resetting = true;
    await this.io.reset().catch(() => {});
    await this.io.detach();
    this.queues.drop();
    const { pool, kernel } = this.#world;
    for (const row of [this.#refused, ...this.#rows.values()]) {
      pool.rows.give(row);
    }
    pool.unregister(this.#controller);
    for (const region of this.memory.regions) {
      if (region.mapped) {
        this.memory.checkFree();
        this.memory.unmapped(region);
      }
    }
    for (const fd of this.#fds) {
      kernel.close(fd);
    }
  }
}
