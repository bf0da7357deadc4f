/**
 * An NBD export as a reactor has it: requests go out and replies come in over a connection of its own, by operations in the ring that belong to no
 * slot. Main makes the connections (`connections.ts`); while there is none, requests wait, and what was not answered is sent again.
 *
 * All data goes through memory of our own, so that a server that hangs holds on to nobody's: what is with the server can be left to itself.
 */

import type { RingTag } from '../../io/tags.ts';
import type { HostRanges } from '../../memory/host-ranges.ts';
import { ExportFlag, NbdCommand, NbdCommandFlag, NbdError } from '../../spec/nbd.ts';
import { POLLIN, Timespec } from '../../spec/uring.ts';
import { type Backend, Detached, GIVEN_UP, PENDING, type Request } from '../backend.ts';
import type { BackendContext } from '../context.ts';
import { Op, opSet } from '../op.ts';
import { Result } from '../result.ts';
import type { NbdDescriptor } from './descriptor.ts';
import { resultOf } from './errors.ts';
import { Receiver } from './receiver.ts';
import { Sender } from './sender.ts';
import { NbdSlots, NONE, SlotList, State } from './slots.ts';
import { Ask, NbdWords } from './words.ts';

/** Bytes that are zeroed or discarded by one request: it is answered within its time, and others have their turn. */
const ZERO_STEP = 32 * 1024 * 1024;
/** In so many ticks the time of a request is over. */
const TICKS = 20;
const EVENTFD_BYTES = 8;
const ETIMEDOUT = 110;
const EPROTO = 71;
const ECONNRESET = 104;

const Way = {
  /** There is no connection. */
  WAITING: 0,
  CONNECTED: 1,
  /** The same, but nothing more is sent. */
  DRAINING: 2,
  /** It is of no use any more, and operations on it are under way. */
  LEAVING: 3,
} as const;

/** What the NBD bdevs of a reactor share. */
export class NbdShared {
  readonly slots = new NbdSlots();
  /** By their words. */
  readonly backends = new Map<SharedArrayBuffer, NbdBackend>();
}

/** The reactor's way to the export, which all that use it share: there is one connection. */
export function openNbd(descriptor: NbdDescriptor, context: BackendContext): Backend {
  context.nbd ??= new NbdShared();
  const open = context.nbd.backends.get(descriptor.words);
  if (open !== undefined) {
    open.users += 1;
    return open;
  }
  const backend = new NbdBackend(descriptor, context, context.nbd);
  context.nbd.backends.set(descriptor.words, backend);
  return backend;
}

export class NbdBackend implements Backend {
  readonly async = true;
  readonly operations: number;
  readonly zeroStep = ZERO_STEP;
  users = 1;
  readonly #descriptor: NbdDescriptor;
  readonly #context: BackendContext;
  readonly #shared: NbdShared;
  readonly #request: Request;
  readonly #slots: NbdSlots;
  readonly #list: SlotList;
  readonly #words: NbdWords;
  readonly #reactor: number;
  readonly #sender: Sender;
  readonly #receiver: Receiver;
  readonly #sending: RingTag;
  readonly #receiving: RingTag;
  readonly #waking: RingTag;
  readonly #ticking: RingTag;
  /** The registered eventfd, and where its count goes. */
  readonly #wakeFile: number;
  readonly #scratch: SharedArrayBuffer;
  /** Host addresses: of the count; of the time of a tick. */
  readonly #addresses = new Float64Array(2);
  #isPolling = true;
  readonly #canFlush: boolean;
  readonly #canFua: boolean;
  #way: number = Way.WAITING;
  /** Of main's offer that was taken last, and the round that it was made in. */
  #offer: number;
  #round = 0;
  /** The registered socket. */
  #file = NONE;
  #maximum = 0;
  /** Requests with the server, or on their way there. */
  #unanswered = 0;
  #reason = 0;
  #ticks = 0;

  constructor(descriptor: NbdDescriptor, context: BackendContext, shared: NbdShared) {
    const { system, tags, transfers, copies, files } = context;
    this.#descriptor = descriptor;
    this.#context = context;
    this.#shared = shared;
    this.#request = context.request;
    this.#slots = shared.slots;
    this.#list = new SlotList(shared.slots);
    this.#words = new NbdWords(descriptor.words);
    this.#reactor = context.reactor;
    this.#canFlush = (descriptor.flags & ExportFlag.SEND_FLUSH) !== 0;
    this.#canFua = (descriptor.flags & ExportFlag.SEND_FUA) !== 0;
    this.operations = operationsOf(descriptor.flags);
    this.#sender = new Sender(system, transfers, copies);
    this.#receiver = new Receiver(system, shared.slots, this.#list, transfers, copies, this);
    this.#scratch = system.mapAnonymous(4096);
    this.#addresses[0] = system.addressOf(new Uint8Array(this.#scratch, 0, 1));
    this.#addresses[1] = this.#addresses[0] + EVENTFD_BYTES;
    this.#writeTick(descriptor.timeoutMs / TICKS);
    this.#sending = tags.take((result) => this.#sent(result));
    this.#receiving = tags.take((result) => this.#received(result));
    this.#waking = tags.take(() => this.#woken());
    this.#ticking = tags.take(() => this.#ticked());
    this.#wakeFile = files.add(descriptor.wakes[this.#reactor]);
    this.#waking.poll(descriptor.wakes[this.#reactor], POLLIN);
    this.#offer = this.#words.offered(this.#reactor);
    this.#words.begin(this.#reactor);
    this.#wants();
  }

  #writeTick(ms: number): void {
    const view = new DataView(this.#scratch, EVENTFD_BYTES, Timespec.size);
    const seconds = Math.floor(ms / 1000);
    Timespec.write(view, 0, { seconds, nanoseconds: Math.round((ms % 1000) * 1e6) });
  }

  // --- requests -----------------------------------------------------------------------------------------------------

  /** Hot. */
  submit(op: Op, slot: number): number {
    const { segments, offset, length, fua, deallocate } = this.#request;
    const { transfers } = this.#context;
    const slots = this.#slots;
    let flags = 0;
    let syncs = 0;
    if (op === Op.FLUSH) {
      if (this.#words.lost !== 0) {
        return Result.NOT_DURABLE;
      }
      if (!this.#canFlush) {
        return Result.OK;
      }
      transfers.op[slot] = op;
      transfers.rest[slot] = 0;
    } else {
      if (op <= Op.WRITE) {
        transfers.start(slot, op, segments);
      } else {
        transfers.op[slot] = op;
      }
      transfers.offset[slot] = offset[0];
      transfers.rest[slot] = length;
      if (op === Op.WRITE_ZEROES && !deallocate) {
        flags = NbdCommandFlag.NO_HOLE;
      }
      if (op !== Op.READ && (fua || this.#descriptor.fua)) {
        flags |= this.#canFua ? NbdCommandFlag.FUA : 0;
        syncs = this.#canFua || !this.#canFlush ? 0 : 1;
      }
    }
    slots.command[slot] = commandOf(op);
    slots.flags[slot] = flags;
    slots.syncs[slot] = syncs;
    slots.alone[slot] = 0;
    slots.late[slot] = 0;
    slots.error[slot] = 0;
    this.#append(slot);
    if (!this.#ticking.busy && this.#descriptor.timeoutMs > 0) {
      this.#ticking.timeout(this.#addresses, 1);
    }
    this.#pump();
    return PENDING;
  }

  #append(slot: number): void {
    this.#slots.stamp[slot] = this.#ticks;
    this.#list.append(slot);
  }

  /** Hot. Sends what is to be sent, as far as there is room. */
  #pump(): void {
    if (this.#way !== Way.CONNECTED) {
      return;
    }
    const list = this.#list;
    while (list.unsent !== NONE && this.#send(list.unsent)) {
      // Each is in the buffer, or over.
    }
    this.#sender.kick(this.#sending, this.#file);
  }

  /** False if there is no room for it now. */
  #send(slot: number): boolean {
    const slots = this.#slots;
    const { rest, offset } = this.#context.transfers;
    const command = slots.command[slot];
    if (command === NbdCommand.FLUSH && this.#words.lost !== 0) {
      this.#end(slot, Result.NOT_DURABLE);
      return true;
    }
    const isFlush = command === NbdCommand.FLUSH;
    const most = command <= NbdCommand.WRITE ? this.#maximum : ZERO_STEP;
    const length = Math.min(rest[slot], most);
    const cookie = (slots.cookie[slot] + 1) | 0;
    const data = command === NbdCommand.WRITE ? length : 0;
    const at = isFlush ? 0 : offset[slot];
    if (!this.#sender.add(slot, cookie, command, slots.flags[slot], at, length, data)) {
      return false;
    }
    slots.cookie[slot] = cookie;
    slots.length[slot] = length;
    slots.received[slot] = 0;
    slots.pieces.clear(slot);
    slots.error[slot] = 0;
    if (isFlush) {
      slots.epoch[slot] = this.#words.flushes();
    }
    this.#list.sent();
    this.#unanswered += 1;
    this.#words.sent(this.#reactor);
    return true;
  }

  /** Hot. See `Answered`. */
  answered(slot: number, error: number): void {
    const slots = this.#slots;
    if (error === NbdError.ESHUTDOWN) {
      // It was not carried out: another connection may be to a server that stays. What else has come over this one is taken first.
      this.#stop(error);
      return;
    }
    this.#unanswered -= 1;
    this.#words.ended(this.#reactor);
    const command = slots.command[slot];
    if (error !== 0) {
      slots.error[slot] = error;
      if (command === NbdCommand.FLUSH) {
        this.#words.lose(error);
      }
      this.#end(slot, resultOf(command, error));
      return;
    }
    const { transfers } = this.#context;
    if (slots.alone[slot] !== 0) {
      this.#end(slot, Result.ABORTED);
      return;
    }
    if (command === NbdCommand.FLUSH) {
      this.#words.flushed(slots.epoch[slot]);
      this.#end(slot, this.#words.lost === 0 ? Result.OK : Result.NOT_DURABLE);
      return;
    }
    // Before the rest of it is sent: a server that dies between two parts of a write has forgotten the first.
    if (command !== NbdCommand.READ && (slots.flags[slot] & NbdCommandFlag.FUA) === 0) {
      this.#words.acknowledged(this.#reactor);
    }
    const length = slots.length[slot];
    if (length < transfers.rest[slot]) {
      transfers.advance(slot, length);
      this.#list.remove(slot);
      this.#append(slot);
      return;
    }
    if (slots.syncs[slot] !== 0) {
      this.#sync(slot);
      return;
    }
    this.#end(slot, Result.OK);
  }

  /** From here on the slot is a flush's. */
  #sync(slot: number): void {
    this.#slots.command[slot] = NbdCommand.FLUSH;
    this.#slots.flags[slot] = 0;
    this.#slots.syncs[slot] = 0;
    this.#context.transfers.op[slot] = Op.FLUSH;
    this.#context.transfers.rest[slot] = 0;
    this.#list.remove(slot);
    this.#append(slot);
  }

  #end(slot: number, result: number): void {
    this.#list.remove(slot);
    this.#slots.state[slot] = State.ENDED;
    this.#context.ended.push(slot, result);
  }

  complete(slot: number, reported: number): number {
    const { error, state } = this.#slots;
    if (reported === GIVEN_UP) {
      this.#request.errno = ETIMEDOUT;
      this.#request.offset[0] = this.#context.transfers.offset[slot];
      return PENDING;
    }
    state[slot] = State.NONE;
    if (reported !== Result.OK && error[slot] !== 0) {
      this.#request.errno = error[slot];
      this.#request.offset[0] = this.#context.transfers.offset[slot];
    }
    return reported;
  }

  touches(slot: number, memory: HostRanges): boolean {
    return this.#context.transfers.touches(slot, memory);
  }

  /** What was not sent need not be; what was uses memory of ours. */
  detach(slot: number): Detached {
    const { state, alone } = this.#slots;
    if (state[slot] === State.QUEUED) {
      this.#list.remove(slot);
      return Detached.OVER;
    }
    if (state[slot] !== State.SENT) {
      return Detached.NO;
    }
    alone[slot] = 1;
    return Detached.ALONE;
  }

  // --- the connection -----------------------------------------------------------------------------------------------

  /** Main is to offer a connection. */
  #wants(): void {
    this.#words.ask(this.#reactor, this.#offer, Ask.WANTS, this.#reason);
    this.#context.system.eventfdSignal(this.#descriptor.tell);
  }

  /** The words may have changed; and then the eventfd is read. */
  #woken(): void {
    this.#isPolling = !this.#isPolling;
    if (this.#isPolling) {
      this.#waking.poll(this.#descriptor.wakes[this.#reactor], POLLIN);
      this.#look();
    } else {
      this.#waking.read(this.#wakeFile, this.#addresses, 0, EVENTFD_BYTES);
    }
  }

  #look(): void {
    const round = this.#words.round;
    if (this.#way === Way.WAITING && this.#words.offered(this.#reactor) !== this.#offer) {
      this.#take(round);
    }
    if (this.#way === Way.CONNECTED && round !== this.#round) {
      this.#way = Way.DRAINING;
      this.#checkDrained();
    }
  }

  #take(round: number): void {
    this.#offer = this.#words.offered(this.#reactor);
    const { fd, structured, maximum } = this.#words.offer(this.#reactor);
    this.#file = this.#context.files.add(fd);
    this.#round = round;
    this.#maximum = maximum;
    this.#reason = 0;
    this.#way = Way.CONNECTED;
    this.#words.ask(this.#reactor, this.#offer, Ask.USES);
    this.#sender.clear();
    this.#receiver.begin(structured);
    this.#receiver.receive(this.#receiving, this.#file);
    this.#pump();
  }

  #sent(result: number): void {
    if (this.#way === Way.LEAVING) {
      this.#checkLeft();
    } else if (result < 0) {
      this.#leave(-result);
    } else {
      this.#sender.sent(result);
      if (this.#way === Way.CONNECTED) {
        this.#pump();
      } else {
        this.#sender.kick(this.#sending, this.#file);
        this.#checkDrained();
      }
    }
  }

  #received(result: number): void {
    if (this.#way === Way.LEAVING) {
      this.#checkLeft();
    } else if (result <= 0) {
      this.#leave(result === 0 ? ECONNRESET : -result);
    } else if (!this.#receiver.received(result)) {
      this.#leave(EPROTO);
    } else if (this.#isLeaving()) {
      this.#checkLeft();
    } else {
      this.#receiver.receive(this.#receiving, this.#file);
      this.#pump();
      this.#checkDrained();
    }
  }

  #isLeaving(): boolean {
    return this.#way === Way.LEAVING;
  }

  #checkDrained(): void {
    if (this.#way === Way.DRAINING && this.#unanswered === 0 && this.#sender.empty) {
      this.#leave(0);
    }
  }

  /** The connection is of no use any more. `reason`: an errno. */
  #leave(reason: number): void {
    this.#stop(reason);
    this.#checkLeft();
  }

  /** The same, where what has come is being taken apart: `#checkLeft` follows. The first reason is the one that is told. */
  #stop(reason: number): void {
    if (this.#way === Way.LEAVING || this.#way === Way.WAITING) {
      return;
    }
    this.#way = Way.LEAVING;
    this.#reason = reason;
    this.#receiving.cancel();
    this.#sending.cancel();
  }

  /** Nothing of it is under way any more: what was not answered is sent again by the next, unless nobody waits for it. */
  #checkLeft(): void {
    if (this.#way !== Way.LEAVING || this.#receiving.busy || this.#sending.busy) {
      return;
    }
    this.#context.files.release(this.#file);
    this.#file = NONE;
    this.#way = Way.WAITING;
    const { next, alone } = this.#slots;
    for (let slot = this.#list.first; slot !== this.#list.unsent; ) {
      const after = next[slot];
      this.#words.ended(this.#reactor);
      if (alone[slot] !== 0) {
        this.#end(slot, Result.ABORTED);
      }
      slot = after;
    }
    this.#unanswered = 0;
    this.#list.rewind();
    this.#wants();
    this.#look();
  }

  // --- time ---------------------------------------------------------------------------------------------------------

  /** Those whose time is over end. What is with a server that may carry it out yet is left to itself: its blocks are kept from others. */
  #ticked(): void {
    this.#ticks = (this.#ticks + 1) | 0;
    const { next, stamp, state, alone, late, error } = this.#slots;
    for (let slot = this.#list.first; slot !== NONE; ) {
      const after = next[slot];
      if (((this.#ticks - stamp[slot]) | 0) <= TICKS) {
        break;
      }
      if (state[slot] === State.QUEUED) {
        error[slot] = ETIMEDOUT;
        this.#end(slot, Result.PATH_LOST);
      } else if (alone[slot] === 0 && late[slot] === 0) {
        late[slot] = 1;
        this.#context.ended.push(slot, GIVEN_UP);
      }
      slot = after;
    }
    if (!this.#list.empty) {
      this.#ticking.timeout(this.#addresses, 1);
    }
  }

  close(): void {
    this.users -= 1;
    if (this.users > 0) {
      return;
    }
    const { files } = this.#context;
    this.#shared.backends.delete(this.#descriptor.words);
    for (const tag of [this.#sending, this.#receiving, this.#waking, this.#ticking]) {
      tag.retire();
    }
    files.release(this.#wakeFile);
    if (this.#file !== NONE) {
      files.release(this.#file);
    }
    this.#words.ask(this.#reactor, this.#offer, Ask.CLOSED);
    this.#context.system.eventfdSignal(this.#descriptor.tell);
  }
}

function operationsOf(flags: number): number {
  const zeroing = (flags & ExportFlag.SEND_WRITE_ZEROES) === 0 ? 0 : opSet(Op.WRITE_ZEROES);
  const discarding = (flags & ExportFlag.SEND_TRIM) === 0 ? 0 : opSet(Op.DISCARD);
  return opSet(Op.READ, Op.WRITE, Op.FLUSH) | zeroing | discarding;
}

/** Hot. */
function commandOf(op: Op): number {
  switch (op) {
    case Op.READ:
      return NbdCommand.READ;
    case Op.WRITE:
      return NbdCommand.WRITE;
    case Op.FLUSH:
      return NbdCommand.FLUSH;
    case Op.DISCARD:
      return NbdCommand.TRIM;
    default:
      return NbdCommand.WRITE_ZEROES;
  }
}
