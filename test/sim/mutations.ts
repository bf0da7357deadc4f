/** Faults to be put into the built product: a piece of a file that is there once, and what takes its place. */

export interface Mutation {
  readonly name: string;
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

/** Faults of the kinds that were once seen from outside: memory that was taken away, durability, disks that hang. */
const SEEN_BEFORE: readonly Mutation[] = [
  {
    name: 'DMA_UNMAP waits for no command that uses the memory',
    file: 'src/nvme/plane/drains.js',
    from: 'share.channel.backendOf(slots.op(slot)).touches?.(slot, memory) === true ||',
    to: '',
  },
  {
    name: 'a Flush succeeds again after a failed write-back',
    file: 'src/bdev/write-back.js',
    from: 'return Atomics.load(this.#words, ERRNO) !== 0;',
    to: 'return false;',
  },
  {
    name: 'a file system that may block is asked in place',
    file: 'src/bdev/uring.js',
    from: 'descriptor.mayBlock ? IOSQE_ASYNC << 8 : 0',
    to: '0',
  },
  {
    name: 'a hung flush keeps a reset waiting',
    file: 'src/bdev/uring.js',
    from: 'return Detached.ALONE;',
    to: 'return Detached.NO;',
  },
  {
    name: 'an operation that was left to itself copies all the same',
    file: 'src/bdev/bounce.js',
    from: 'this.#alone[slot] = 1;',
    to: '',
  },
  {
    name: 'an old write lands on a new one',
    file: 'src/bdev/requests/stale-writes.js',
    from: 'if (Atomics.load(words, COUNT) === 0) {',
    to: 'if (true) {',
  },
];

/** Faults that the simulator found, as they were. */
const FOUND: readonly Mutation[] = [
  {
    name: 'a chunk that fails at once stays behind',
    file: 'src/bdev/bounce.js',
    from: 'if (status !== PENDING) {\n            // The',
    to: 'if (false) {\n            // The',
  },
  {
    name: 'a reactor that dies forgets what its operations come to',
    file: 'src/reactor/loop.js',
    from: 'this.#endOne(slot, ring.result(i));',
    to: '',
  },
  {
    name: 'a queue is made while its controller is reset',
    file: 'src/nvme/plane/controller-queues.js',
    from: 'this.#ends = true;',
    to: '',
  },
  {
    name: 'the sync of a FUA write keeps a reset waiting',
    file: 'src/bdev/requests/flight.js',
    from: 'if (queue !== undefined && leaves !== undefined) {',
    to: 'if (false) {',
  },
  {
    name: 'completions without a place are lost',
    file: 'src/bdev/requests/waiting.js',
    from: 'if (silent || (!its.stopped && (queue === undefined || its === queue))) {',
    to: 'if (queue === undefined || its === queue) {',
  },
  {
    name: 'a queue that rests holds up the others',
    file: 'src/bdev/requests/waiting.js',
    from: 'before = place;\n            }\n            else if (this.#mayGo(',
    to: 'break;\n            }\n            else if (this.#mayGo(',
  },
];

/** Any others. */
const OTHERS: readonly Mutation[] = [
  {
    name: 'the phase tag stays',
    file: 'src/nvme/queue.js',
    from: 'this.#phase ^= 1;',
    to: '',
  },
  {
    name: 'room is counted without commands under way',
    file: 'src/nvme/queue.js',
    from: '(posted < 0 ? posted + this.size : posted) - this.#reserved;',
    to: '(posted < 0 ? posted + this.size : posted);',
  },
  {
    name: 'a queue moves without its head',
    file: 'src/nvme/plane/controller-queues.js',
    from: 'sq.head = progress[sq.qid * QUEUE_WORDS + QueueWord.SQ_HEAD];',
    to: '',
  },
  {
    name: 'a queue moves with commands under way',
    file: 'src/nvme/queue.js',
    from: 'return this.#reserved === 0 && this.#staged === 0;',
    to: 'return this.#staged === 0;',
  },
  {
    name: 'a queue that moves is not interrupted for once more',
    file: 'src/nvme/plane/controller-queues.js',
    from: 'if (cq.interrupts && eventfd >= 0 && cq.pending) {',
    to: 'if (false) {',
  },
  {
    name: 'an interrupt that is held back is forgotten',
    file: 'src/nvme/plane/publisher.js',
    from: 'this.#signals[this.#signalCount++] = cq;\n                continue;',
    to: 'cq.signalQueued = false;\n                continue;',
  },
  {
    name: 'main wakes no reactor',
    file: 'src/reactor/pool.js',
    from: 'if (Atomics.load(slot.words, Word.SLEEPING) === 1) {',
    to: 'if (false) {',
  },
  {
    name: 'shadow doorbells ask for no ring',
    file: 'src/nvme/queue.js',
    from: 'Atomics.store(this.eventIdx, this.tailIndex, tail);',
    to: '',
  },
  {
    name: 'a flush shares a sync that has begun',
    file: 'src/bdev/requests/syncs.js',
    from: 'else if (this.#ring.entered === this.#preparedAt) {',
    to: 'else if (true) {',
  },
  {
    name: 'FUA is forgotten',
    file: 'src/bdev/uring.js',
    from: 'const fua = request.fua && op === Op.WRITE;',
    to: 'const fua = false;',
  },
  {
    name: 'a short transfer counts as a whole one',
    file: 'src/bdev/uring.js',
    from: 'if (result === rest) {',
    to: 'if (result > 0) {',
  },
  {
    name: 'an interrupted operation fails',
    file: 'src/bdev/uring.js',
    from: 'if (result === -EINTR || result === -EAGAIN) {\n            this.#issue',
    to: 'if (false) {\n            this.#issue',
  },
  {
    name: 'the second entry of a PRP list is left out',
    file: 'src/nvme/prp.js',
    from: 'index += 2;\n        entries -= 1;\n        while',
    to: 'index += 4;\n        entries -= 1;\n        while',
  },
  {
    name: 'an SQ is deleted with commands under way',
    file: 'src/nvme/plane/drains.js',
    from: 'includes: (queue) => queue === gone,',
    to: 'includes: () => false,',
  },
  {
    name: 'operations of a bdev are never over',
    file: 'src/bdev/requests/flight.js',
    from: 'share.channel.busy -= isRanged(op) ? 1 : 0;',
    to: '',
  },
  {
    name: 'a rate limit is never over',
    file: 'src/bdev/requests/waiting.js',
    from: 'return this.#look || this.due !== Number.POSITIVE_INFINITY;',
    to: 'return this.#look;',
  },
  {
    name: 'a reactor sleeps on when a rate limit is over',
    file: 'src/reactor/rest.js',
    from: 'if (left === Number.POSITIVE_INFINITY) {',
    to: 'if (true) {',
  },
  {
    name: 'a guest whose reactor died does not wait for its disk',
    file: 'src/target/queues.js',
    from: 'await Promise.all(this.#leaving);',
    to: '',
  },
  {
    name: 'all wait for what a dead reactor has under way',
    file: 'src/reactor/pool.js',
    from: 'const left = holders.includes(id)',
    to: 'const left = true',
  },
  {
    name: 'write access to a write-protected bdev',
    file: 'src/nvme/plane/engine.js',
    from: 'if (op === Op.WRITE && namespace.readonly) {',
    to: 'if (false) {',
  },
];

export const MUTATIONS: readonly Mutation[] = [...SEEN_BEFORE, ...FOUND, ...OTHERS];
