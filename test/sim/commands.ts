/** Commands of a model host: what it asks, what may come of it, and whether what came is right. */
import { NvmOpcode } from '../../src/spec/nvm.ts';
import type { Random } from '../helpers/random.ts';
import type { SimBdev } from './bdevs.ts';
import { SECTORS } from './bdevs.ts';
import { SECTOR, SECTOR_WORDS } from './disk.ts';
import type { SimWrite } from './history.ts';
import { type HostMemory, PAGE, Pages } from './host-memory.ts';
import { Violation } from './violation.ts';

/** A namespace as the host knows it. While it changes it may be another bdev, or none. */
export interface HostNamespace {
  bdev: SimBdev | undefined;
  next: SimBdev | undefined;
  changing: boolean;
  /** Blocks that are sure to be there; those above may be, below `most`. */
  blocks: number;
  most: number;
}

export interface Command {
  readonly kind: 'read' | 'write' | 'flush' | 'bad';
  readonly sqid: number;
  readonly cid: number;
  readonly nsid: number;
  readonly first: number;
  readonly count: number;
  readonly write: SimWrite | undefined;
  /** What it may be about. */
  readonly bdevs: SimBdev[];
  readonly pages: readonly number[];
  readonly offset: number;
  readonly list: number | undefined;
  /** The step at which it was sent, and the time. */
  readonly since: number;
  readonly sentAt: number;
  readonly fua: boolean;
  /** A success says that it is on stable storage. */
  durable: boolean;
  mustFail: boolean;
  mayFail: boolean;
}

/** Most sectors of a command. */
const MOST_SECTORS = 40;
const MISSING_NSID = 77;

export interface CommandWorld {
  readonly random: Random;
  /** Steps so far; each call is one. */
  step(): number;
  readonly now: number;
  /** Of all bdevs. */
  readonly blockSize: number;
}

export class Commands {
  readonly #world: CommandWorld;
  readonly #memory: HostMemory;
  readonly namespaces = new Map<number, HostNamespace>();
  writeThrough = false;

  constructor(world: CommandWorld, memory: HostMemory) {
    this.#world = world;
    this.#memory = memory;
  }

  /** A command, and its SQE in `sqe`. Undefined if there is no memory left for one. */
  make(sqid: number, cid: number, sqe: Int32Array): Command | undefined {
    const { random } = this.#world;
    sqe.fill(0);
    const nsid = random.pick([...this.namespaces.keys()]);
    const kind = random.chance(0.06)
      ? 'bad'
      : random.chance(0.12)
        ? 'flush'
        : random.chance(0.5)
          ? 'read'
          : 'write';
    return kind === 'flush'
      ? this.#flush(sqid, cid, nsid, sqe)
      : this.#transfer(kind, sqid, cid, nsid, sqe);
  }

  #common(sqid: number, cid: number, nsid: number) {
    const { bdev, next, changing } = this.namespaces.get(nsid)!;
    const bdevs = [bdev, next].filter((each) => each !== undefined);
    const since = this.#world.step();
    return { sqid, cid, nsid, since, sentAt: this.#world.now, bdevs, changing };
  }

  #flush(sqid: number, cid: number, nsid: number, sqe: Int32Array): Command {
    const common = this.#common(sqid, cid, nsid);
    sqe[0] = NvmOpcode.FLUSH | (cid << 16);
    sqe[1] = nsid;
    return {
      ...common,
      kind: 'flush',
      first: 0,
      count: 0,
      write: undefined,
      pages: [],
      offset: 0,
      list: undefined,
      fua: false,
      durable: true,
      mustFail: false,
      mayFail: common.changing || mayFail(common.bdevs),
    };
  }

  #transfer(
    kind: 'read' | 'write' | 'bad',
    sqid: number,
    cid: number,
    nsid: number,
    sqe: Int32Array,
  ): Command | undefined {
    const { random } = this.#world;
    const namespace = this.namespaces.get(nsid)!;
    const unit = this.#world.blockSize / SECTOR;
    const blocks = 1 + random.below(Math.floor(MOST_SECTORS / unit));
    const count = blocks * unit;
    const lba = random.below(Math.max(1, SECTORS / unit - blocks + 1));
    const bytes = count * SECTOR;
    const offset = random.chance(0.5) ? 0 : 4 * random.below(PAGE / 4);
    const pages = this.#memory.take(Math.ceil((offset + bytes) / PAGE), random);
    const list = pages !== undefined && pages.length > 2 ? this.#memory.takeList() : undefined;
    if (pages === undefined || (pages.length > 2 && list === undefined)) {
      if (pages !== undefined) {
        this.#memory.give(pages);
      }
      return undefined;
    }
    const common = this.#common(sqid, cid, nsid);
    const isWrite = kind === 'write';
    const fua = isWrite && random.chance(0.2);
    sqe[0] = (isWrite ? NvmOpcode.WRITE : NvmOpcode.READ) | (cid << 16);
    sqe[1] = nsid;
    this.#prps(sqe, pages, offset, list);
    sqe[10] = lba;
    sqe[12] = (blocks - 1) | (fua ? 1 << 30 : 0);
    const sure = lba + blocks <= namespace.blocks;
    const write: SimWrite | undefined = isWrite
      ? { stamp: common.since, begin: common.since, end: Number.POSITIVE_INFINITY, done: false }
      : undefined;
    const command: Command = {
      ...common,
      kind,
      first: lba * unit,
      count,
      write,
      pages,
      offset,
      list,
      fua,
      durable: fua || (isWrite && this.writeThrough),
      mustFail:
        !common.changing &&
        (lba + blocks > namespace.most || (isWrite && namespace.bdev?.readonly === true)),
      mayFail:
        !sure ||
        common.changing ||
        mayFail(common.bdevs) ||
        (isWrite && common.bdevs.some(({ readonly }) => readonly)) ||
        !(pages.every((page) => this.#memory.reachable(page)) && this.#listReachable(list)),
    };
    if (kind === 'bad') {
      command.mustFail = true;
      this.#spoil(sqe);
    }
    if (write !== undefined) {
      this.#fill(command, write.stamp);
      for (const { history } of common.bdevs) {
        history.begin(write, command.first, count);
      }
    }
    return command;
  }

  #listReachable(list: number | undefined): boolean {
    return list === undefined || this.#memory.reachable(Pages.LISTS);
  }

  #spoil(sqe: Int32Array): void {
    switch (this.#world.random.below(5)) {
      case 0:
        sqe[0] = (sqe[0] & ~0xff) | 0x7f;
        break;
      case 1:
        sqe[1] = MISSING_NSID;
        break;
      case 2:
        sqe[11] = 0x7fff_ffff;
        break;
      case 3:
        sqe[0] |= 0xc000;
        break;
      default:
        sqe[6] |= 1;
    }
  }

  #prps(sqe: Int32Array, pages: readonly number[], offset: number, list: number | undefined): void {
    setWide(sqe, 6, this.#memory.iova(pages[0]) + offset);
    if (list === undefined) {
      setWide(sqe, 8, pages.length > 1 ? this.#memory.iova(pages[1]) : 0);
      return;
    }
    const words = this.#memory.words(Pages.LISTS);
    for (const [i, page] of pages.slice(1).entries()) {
      setWide(words, list * 16 + 2 * i, this.#memory.iova(page));
    }
    setWide(sqe, 8, this.#memory.iova(Pages.LISTS) + list * 64);
  }

  /** The word of a command's buffer. */
  #at({ pages, offset }: Command, word: number): { words: Int32Array; index: number } {
    const at = offset / 4 + word;
    return { words: this.#memory.words(pages[Math.floor(at / 1024)]), index: at % 1024 };
  }

  #fill({ pages, offset, count }: Command, stamp: number): void {
    let from = offset / 4;
    let left = count * SECTOR_WORDS;
    for (const page of pages) {
      const words = Math.min(left, PAGE / 4 - from);
      this.#memory.words(page).fill(stamp, from, from + words);
      left -= words;
      from = 0;
    }
  }

  /** The namespace of a command that is under way changes: to another bdev, or in size. */
  unsettle(command: Command, next: SimBdev | undefined): void {
    command.mayFail = true;
    command.mustFail = command.kind === 'bad';
    if (next !== undefined && !command.bdevs.includes(next)) {
      command.bdevs.push(next);
      if (command.write !== undefined) {
        next.history.begin(command.write, command.first, command.count);
      }
    }
  }

  // --- what came of it --------------------------------------------------------------------------------------------------

  completed(command: Command, status: number): void {
    const { mustFail, mayFail: allowed, write } = command;
    const now = this.#world.step();
    const what = describe(command);
    if (status === 0 && mustFail) {
      throw new Violation(`${what} succeeded`);
    }
    const excused = allowed || mayFail(command.bdevs);
    if (status !== 0 && !mustFail && !excused) {
      throw new Violation(`${what} failed with 0x${status.toString(16)}`);
    }
    if (write !== undefined) {
      write.end = now;
      write.done = status === 0 && command.bdevs.length === 1;
    }
    if (status === 0 && command.kind === 'read') {
      this.#checkRead(command, what);
    }
    if (status === 0 && command.durable && command.bdevs.length === 1) {
      checkDurable(command, what);
    }
    this.release(command);
  }

  /** Its queue, or its controller, is gone. */
  lost(command: Command): void {
    if (command.write !== undefined) {
      command.write.end = this.#world.step();
    }
    this.release(command);
  }

  release({ pages, list }: Command): void {
    this.#memory.give(pages);
    if (list !== undefined) {
      this.#memory.giveList(list);
    }
  }

  #checkRead(command: Command, what: string): void {
    const { bdevs, first, count, since } = command;
    if (bdevs.some(({ checked }) => !checked)) {
      return;
    }
    for (let sector = 0; sector < count; sector++) {
      const base = sector * SECTOR_WORDS;
      const { words, index } = this.#at(command, base);
      const stamp = words[index];
      for (const word of [1, 63, SECTOR_WORDS - 1]) {
        const other = this.#at(command, base + word);
        if (other.words[other.index] !== stamp) {
          throw new Violation(`${what}: sector ${first + sector} is torn`);
        }
      }
      if (bdevs.length !== 1) {
        if (!bdevs.some(({ history }) => history.allows(first + sector, stamp, since))) {
          throw new Violation(`${what}: ${stamp} is in neither bdev`);
        }
      } else {
        bdevs[0].history.check(first + sector, stamp, since, what);
      }
    }
    this.#checkEdges(command, what);
  }

  /** Nothing was written beside the buffer. */
  #checkEdges({ pages, offset, count }: Command, what: string): void {
    const end = (offset + count * SECTOR) % PAGE;
    const last = pages[pages.length - 1];
    const before = offset === 0 || this.#memory.isQuiet(pages[0], offset / 4 - 1);
    if (!before || !(end === 0 || this.#memory.isQuiet(last, end / 4))) {
      throw new Violation(`${what} wrote beside its buffer`);
    }
  }
}

/** Whether a bdev is, or was, in a state in which commands may fail. */
function mayFail(bdevs: readonly SimBdev[]): boolean {
  return bdevs.length !== 1 || bdevs.some(({ disk, injected }) => disk?.failed || injected);
}

function checkDurable({ bdevs, write, first, count, since }: Command, what: string): void {
  const [{ disk, history }] = bdevs;
  if (disk === undefined) {
    return;
  }
  if (write !== undefined) {
    for (let sector = first; sector < first + count; sector++) {
      history.checkStored(sector, disk.stable(sector)[0], write, what);
    }
    return;
  }
  for (let sector = 0; sector < SECTORS; sector++) {
    history.check(sector, disk.stable(sector)[0], since, `${what}, on stable storage`);
  }
}

export function describe({ kind, sqid, cid, nsid, first, count, bdevs }: Command): string {
  const where = bdevs.map(({ name }) => name).join(' or ');
  return `${kind} ${cid} of SQ ${sqid}, namespace ${nsid} (${where}), sectors ${first}+${count}`;
}

function setWide(words: Int32Array, at: number, value: number): void {
  words[at] = value;
  words[at + 1] = Math.floor(value / 2 ** 32);
}
