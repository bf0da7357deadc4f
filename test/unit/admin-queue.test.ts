/**
 * The admin queue and a host that acts at any moment: before every load of a doorbell or an event index it may go first, submit and
 * consume. Nobody polls for main, so what it did not see must lead to a ring.
 */
import assert from 'node:assert/strict';
import { pino } from 'pino';
import t from 'tap';
import { GuestMemory } from '../../src/memory/guest.ts';
import { native } from '../../src/native/index.ts';
import type { Outcome } from '../../src/nvme/admin/command.ts';
import { AdminQueue } from '../../src/nvme/admin-queue.ts';
import { AsyncEvents } from '../../src/nvme/events.ts';
import type { ControllerHost } from '../../src/nvme/host.ts';
import { AdminOpcode } from '../../src/spec/admin.ts';
import { Sqe } from '../../src/spec/nvme.ts';
import { Random } from '../helpers/random.ts';

const WAYS = ['mapped', 'trapped', 'shadow', 'shadow, and the host rings as Linux does'] as const;
const IOVA = 0x10_0000;
const PAGE = 4096;
/** Offsets in the guest's memory. */
const ASQ = 0;
const ACQ = 2 * PAGE;
const SHADOW = 3 * PAGE;
const EVENTS = 4 * PAGE;
const COMMANDS = 400;
const SUCCESS: Outcome = { status: 0, dw0: 0 };
const load = Atomics.load;

/** One controller's admin queue with the host's side of it. */
class Scene {
  readonly #random: Random;
  readonly #way: (typeof WAYS)[number];
  readonly #sqSize: number;
  readonly #cqSize: number;
  readonly #guest = new SharedArrayBuffer(5 * PAGE);
  readonly #doorbells = new Int32Array(new SharedArrayBuffer(PAGE));
  readonly #shadow = new Int32Array(this.#guest, SHADOW, PAGE / 4);
  readonly #eventIdx = new Int32Array(this.#guest, EVENTS, PAGE / 4);
  readonly #cq = new Int32Array(this.#guest, ACQ, PAGE / 4);
  readonly #events = new AsyncEvents();
  readonly #queue: AdminQueue;
  /** What main has seen, of the page. */
  #seen = { tail: 0, head: undefined as number | undefined };
  /** Doorbell writes on their way as messages. */
  readonly #messages: [number, number][] = [];
  /** Commands that wait for a reactor. */
  readonly #late: (() => void)[] = [];
  /** Command ids that are under way, and of parked event requests. */
  readonly #under = new Set<number>();
  readonly #parked = new Set<number>();
  #tail = 0;
  #head = 0;
  #phase = 1;
  #sent = 0;
  #acting = false;

  constructor(random: Random, way: (typeof WAYS)[number], sqSize: number, cqSize: number) {
    this.#random = random;
    this.#way = way;
    this.#sqSize = sqSize;
    this.#cqSize = cqSize;
    const memory = new GuestMemory(native);
    memory.add({ iova: IOVA, size: this.#guest.byteLength, buffer: this.#guest, writable: true });
    const log = pino({ level: 'silent' });
    const host: Partial<ControllerHost> = {
      log,
      memory,
      doorbells: this.#doorbells,
      sawAdminTail: (tail) => {
        this.#seen.tail = tail;
      },
      sawAdminHead: (head) => {
        this.#seen.head = head;
      },
      signalAdmin: () => {},
    };
    this.#queue = new AdminQueue(host as ControllerHost, {
      execute: ({ opcode, cid }) => this.#execute(opcode, cid),
      events: this.#events,
      refused: () => assert.fail('no command fails here'),
      doubt: () => undefined,
      failed: () => false,
      badDoorbell: () => assert.fail('no such value was written'),
    });
    const aqa = ((cqSize - 1) << 16) | (sqSize - 1);
    assert.equal(this.#queue.map({ aqa, asq: IOVA + ASQ, acq: IOVA + ACQ }), undefined);
    if (way.startsWith('shadow')) {
      assert.ok(this.#queue.setShadow({ doorbells: IOVA + SHADOW, eventIdx: IOVA + EVENTS }));
    }
  }

  #execute(opcode: number, cid: number): Outcome | Promise<Outcome> {
    if (opcode === AdminOpcode.ASYNC_EVENT_REQUEST) {
      if (!this.#events.park(cid)) {
        return SUCCESS;
      }
      this.#parked.add(cid);
      return 'parked';
    }
    if (opcode === AdminOpcode.ABORT) {
      for (const parked of this.#parked) {
        this.#events.abort(parked);
      }
      return SUCCESS;
    }
    return this.#random.chance(0.3)
      ? new Promise((resolve) => {
          this.#late.push(() => resolve(SUCCESS));
        })
      : SUCCESS;
  }

  #write(index: number, value: number): void {
    if (this.#way === 'shadow') {
      const old = this.#shadow[index];
      this.#shadow[index] = value;
      if (((value - this.#eventIdx[index] - 1) & 0xffff) >= ((value - old) & 0xffff)) {
        return;
      }
    }
    if (this.#way === 'mapped') {
      this.#doorbells[index] = value;
    } else {
      this.#messages.push([index, value]);
    }
  }

  /** The host submits, or consumes, or does nothing. */
  act(eagerness: number): void {
    if (this.#acting || !this.#random.chance(eagerness)) {
      return;
    }
    this.#acting = true;
    if (this.#random.chance(0.5)) {
      this.#consume(this.#random.size(8));
    } else {
      this.#submit();
    }
    this.#acting = false;
  }

  /** Entries free in the SQ: a parked request has left it. */
  get #room(): number {
    return this.#sqSize - 1 - (this.#under.size - this.#parked.size);
  }

  #submit(): void {
    const most = Math.min(this.#room, COMMANDS - this.#sent);
    for (let n = most > 0 ? this.#random.below(most) + 1 : 0; n > 0; n--) {
      const cid = this.#sent++;
      const kinds = [AdminOpcode.GET_FEATURES, AdminOpcode.GET_FEATURES, AdminOpcode.ABORT];
      const opcode = this.#random.chance(0.1)
        ? AdminOpcode.ASYNC_EVENT_REQUEST
        : this.#random.pick(kinds);
      new Uint8Array(this.#guest).set(
        Sqe.encode({ cdw0: opcode, opcode, cid }),
        ASQ + this.#tail * Sqe.size,
      );
      this.#under.add(cid);
      this.#tail = (this.#tail + 1) % this.#sqSize;
      if (n === 1 || this.#random.chance(0.2)) {
        this.#write(0, this.#tail);
      }
    }
  }

  #consume(most: number): number {
    let count = 0;
    for (; count < most; count++) {
      const dw3 = this.#cq[4 * this.#head + 3];
      if (((dw3 >>> 16) & 1) !== this.#phase) {
        break;
      }
      const cid = dw3 & 0xffff;
      assert.ok(this.#under.delete(cid), `command ${cid} was completed, and is not under way`);
      this.#parked.delete(cid);
      this.#head = (this.#head + 1) % this.#cqSize;
      this.#phase ^= this.#head === 0 ? 1 : 0;
    }
    if (count > 0) {
      this.#write(1, this.#head);
    }
    return count;
  }

  /** One thing that reaches main: a doorbell that the reactor saw, a message, an answer. False if there is nothing. */
  #reach(): boolean {
    const { tail, head } = this.#seen;
    const [dbTail, dbHead] = this.#doorbells;
    if (this.#way === 'mapped' && (dbTail !== tail || (head !== undefined && dbHead !== head))) {
      this.#queue.ring();
      return true;
    }
    const message = this.#messages.shift();
    if (message !== undefined) {
      this.#doorbells[message[0]] = message[1];
      this.#queue.ring();
      return true;
    }
    const answer = this.#late.shift();
    answer?.();
    return answer !== undefined;
  }

  /** Runs until all commands were sent and completed; a parked request may stay. */
  async run(): Promise<void> {
    while (this.#sent < COMMANDS || this.#under.size > this.#parked.size) {
      if (this.#sent < COMMANDS) {
        this.#submit();
      }
      let idle = !this.#reach();
      await new Promise((resolve) => setImmediate(resolve));
      idle = this.#consume(this.#cqSize) === 0 && idle;
      const stalled = idle && this.#under.size > this.#parked.size && this.#messages.length === 0;
      if (stalled && !this.#reach()) {
        assert.ok(
          this.#room > 0 && this.#sent < COMMANDS,
          `commands ${[...this.#under]} wait, and nothing will ever reach main`,
        );
      }
    }
  }
}

for (const way of WAYS) {
  t.test(`no command is left, ${way}`, async (t) => {
    const random = new Random();
    t.comment(`SEED=${random.seed}`);
    for (const [sqSize, cqSize] of [
      [64, 2],
      [2, 2],
      [64, 3],
      [5, 64],
      [33, 7],
    ]) {
      for (const eagerness of [0.05, 0.3, 0.8]) {
        const scene = new Scene(random, way, sqSize, cqSize);
        Atomics.load = ((words: Int32Array, index: number) => {
          scene.act(eagerness);
          return load(words, index);
        }) as typeof Atomics.load;
        try {
          await scene.run();
        } finally {
          Atomics.load = load;
        }
        t.pass(`SQ ${sqSize}, CQ ${cqSize}, ${eagerness}`);
      }
    }
  });
}
