/** The operations of a bdev, and all that there is to know of each: one table. */

export const Op = {
  READ: 0,
  WRITE: 1,
  FLUSH: 2,
  WRITE_ZEROES: 3,
  /** The blocks are not used any more: what holds their data may be given back. */
  DISCARD: 4,
  /** Whether the blocks have the owner's data. */
  COMPARE: 5,
  /** Whether the blocks can be read. */
  VERIFY: 6,
  /** The blocks are not to be read until they are written. */
  WRITE_UNCORRECTABLE: 7,
  /** The blocks get what others have: `Request.ranges`. */
  COPY: 8,
} as const;
export type Op = (typeof Op)[keyof typeof Op];

/** Whether data goes to the owner's memory, comes from there, or neither. */
export const Direction = { NONE: 0, TO_OWNER: 1, FROM_OWNER: 2 } as const;
export type Direction = (typeof Direction)[keyof typeof Direction];

/** What of a bdev's counters an operation adds to; the first two have bytes and latencies. */
export const Counted = { READ: 0, WRITE: 1, FLUSH: 2, DISCARD: 3, OTHER: 4 } as const;
export type Counted = (typeof Counted)[keyof typeof Counted];

/** What may be done with an operation of which nobody knows whether it was carried out. */
export const Replay = {
  /** It is carried out again, at any time. */
  IDEMPOTENT: 0,
  /** The same, before anything newer changes its blocks. */
  ORDERED: 1,
  /** Only with a record of how far it was. */
  RECORD_FIRST: 2,
} as const;
export type Replay = (typeof Replay)[keyof typeof Replay];

interface Operation {
  readonly op: Op;
  /** In words: events and logs. */
  readonly name: string;
  readonly data: Direction;
  /** It is about blocks, and so can be out of range, wait for other writes of these, and take a part of a bdev's depth. */
  readonly ranged: boolean;
  /** It changes blocks: refused on what is write protected, and others keep away from its blocks while it is under way. */
  readonly changes: boolean;
  readonly counted: Counted;
  readonly replay: Replay;
}

export const OPERATIONS: readonly Operation[] = [
  {
    op: Op.READ,
    name: 'read',
    data: Direction.TO_OWNER,
    ranged: true,
    changes: false,
    counted: Counted.READ,
    replay: Replay.IDEMPOTENT,
  },
  {
    op: Op.WRITE,
    name: 'write',
    data: Direction.FROM_OWNER,
    ranged: true,
    changes: true,
    counted: Counted.WRITE,
    replay: Replay.ORDERED,
  },
  {
    op: Op.FLUSH,
    name: 'flush',
    data: Direction.NONE,
    ranged: false,
    changes: false,
    counted: Counted.FLUSH,
    replay: Replay.IDEMPOTENT,
  },
  {
    op: Op.WRITE_ZEROES,
    name: 'write zeroes',
    data: Direction.NONE,
    ranged: true,
    changes: true,
    counted: Counted.OTHER,
    replay: Replay.ORDERED,
  },
  {
    op: Op.DISCARD,
    name: 'discard',
    data: Direction.NONE,
    ranged: true,
    changes: true,
    counted: Counted.DISCARD,
    replay: Replay.ORDERED,
  },
  {
    op: Op.COMPARE,
    name: 'compare',
    data: Direction.FROM_OWNER,
    ranged: true,
    changes: false,
    counted: Counted.READ,
    replay: Replay.IDEMPOTENT,
  },
  {
    op: Op.VERIFY,
    name: 'verify',
    data: Direction.NONE,
    ranged: true,
    changes: false,
    counted: Counted.OTHER,
    replay: Replay.IDEMPOTENT,
  },
  {
    op: Op.WRITE_UNCORRECTABLE,
    name: 'write uncorrectable',
    data: Direction.NONE,
    ranged: true,
    changes: true,
    counted: Counted.OTHER,
    replay: Replay.ORDERED,
  },
  {
    op: Op.COPY,
    name: 'copy',
    data: Direction.NONE,
    ranged: true,
    changes: true,
    counted: Counted.OTHER,
    replay: Replay.RECORD_FIRST,
  },
];

/** Operations as a set: bit `op` of a word. */
export function opSet(...ops: readonly Op[]): number {
  return ops.reduce((set: number, op) => set | (1 << op), 0);
}

export const ALL_OPS = opSet(...OPERATIONS.map(({ op }) => op));

const setOf = (which: (operation: Operation) => boolean): number =>
  opSet(...OPERATIONS.filter(which).map(({ op }) => op));
const RANGED = setOf(({ ranged }) => ranged);
const CHANGING = setOf(({ changes }) => changes);
const WITH_DATA = setOf(({ data }) => data !== Direction.NONE);
const COUNTED = Uint8Array.from(OPERATIONS, ({ counted }) => counted);

/** Hot, as all below. See Operation. */
export function isRanged(op: Op): boolean {
  return ((RANGED >>> op) & 1) !== 0;
}

export function changesBlocks(op: Op): boolean {
  return ((CHANGING >>> op) & 1) !== 0;
}

/** Whether the owner's memory is used. */
export function hasData(op: Op): boolean {
  return ((WITH_DATA >>> op) & 1) !== 0;
}

export function countedAs(op: Op): Counted {
  return COUNTED[op] as Counted;
}
