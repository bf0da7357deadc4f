/**
 * How one client's controller reaches its host's memory: mapped, or by messages where it is not shared. That is found out each time that the
 * host enables the controller, or by its first command; where messages are needed, a relay stands between host and controller until it is disabled. Owned by main.
 */
import { closeSync } from 'node:fs';
import { DOORBELLS_BYTES, MIN_REMOTE_MESSAGE_BYTES, REMOTE_ADMIN_ENTRIES } from '../limits.ts';
import type { GuestMemory } from '../memory/guest.ts';
import { type FdPoll, native } from '../native/index.ts';
import { AdminPlace } from '../nvme/admin-pair.ts';
import type { AdminRegisters } from '../nvme/host.ts';
import { PAGE_DOORBELLS, PAGE_WORDS_BYTES, PageWord } from '../nvme/plane/messages.ts';
import { RemoteMemory } from '../nvme/remote/memory.ts';
import { Relay } from '../nvme/remote/relay.ts';
import { Staging } from '../nvme/remote/staging.ts';
import type { DeviceMemory } from '../pci/memory.ts';
import { CQE_SIZE, SQE_SIZE } from '../spec/nvme.ts';
import { Aqa } from '../spec/registers.ts';
import { IOVA_END } from '../spec/vfio-user.ts';
import type { Logger } from '../util/log.ts';
import type { DmaMessages } from '../vfio-user/dma-messages.ts';
import type { IoQueues } from './queues.ts';
import { SharedMemory } from './shared-memory.ts';

/** Index of the admin SQ's tail among the doorbells. */
const ADMIN_TAIL = 0;

export interface RemoteModeParts {
  readonly log: Logger;
  readonly memory: DeviceMemory;
  readonly messages: DmaMessages;
  /** The client is known to answer these. */
  readonly answersDma: boolean;
  readonly queues: IoQueues;
  /** The host's doorbell page. */
  readonly doorbells: SharedArrayBuffer;
  /** A host whose memory is not shared is refused. */
  readonly required: boolean;
  /** Vectors that queues may have. */
  readonly vectors: number;
  readonly maxTransferBytes: number;
  readonly blockSize: (nsid: number) => number | undefined;
  readonly signal: (vector: number) => void;
  /** Has the controller look at its admin queue. */
  readonly ringAdmin: () => void;
  readonly badDoorbell: () => void;
  readonly fail: (reason: string) => void;
}

/** What stands for the host's memory and doorbells. Made when it is first needed. */
interface Stand {
  readonly staging: Staging;
  readonly doorbells: SharedArrayBuffer;
  /** What main has seen of the host's doorbells. See PageWord. */
  readonly seen: Int32Array;
  /** Signalled by reactors when they complete something. */
  readonly eventfd: number;
  readonly poll: FdPoll;
}

export class RemoteMode {
  readonly #parts: RemoteModeParts;
  readonly #shared: SharedMemory;
  readonly #doorbells: Int32Array;
  #stand: Stand | undefined;
  /** Queues are where the relay has them. */
  #located = false;
  #relay: Relay | undefined;
  /** Another object at each reset: what was begun before is not gone on with. */
  #attempt = {};
  /** Settles when queues are where they were last to be. */
  #moving: Promise<void> = Promise.resolve();
  #told = false;

  constructor(parts: RemoteModeParts) {
    this.#parts = parts;
    this.#shared = new SharedMemory(parts.memory, parts.messages, parts.answersDma);
    this.#doorbells = new Int32Array(parts.doorbells);
  }

  /** Messages are used now. */
  get active(): boolean {
    return this.#relay !== undefined;
  }

  get memory(): RemoteMemory | undefined {
    return this.#relay?.memory;
  }

  /** What the controller has in place of its host's memory and doorbells, while messages are used. */
  get stagedMemory(): GuestMemory | undefined {
    return this.#relay === undefined ? undefined : this.#stand?.staging.memory;
  }

  get stagedDoorbells(): Int32Array | undefined {
    return this.#relay === undefined || this.#stand === undefined
      ? undefined
      : new Int32Array(this.#stand.doorbells);
  }

  /** See ControllerHost. */
  reach(registers: AdminRegisters): AdminRegisters | Promise<AdminRegisters> {
    const place = new AdminPlace(registers);
    if (!this.#isThere(place)) {
      // The controller says what is wrong with it.
      return this.#located ? this.#move(false, place, registers) : registers;
    }
    const remote = this.#isUnshared(place) || this.#shared.isPrivate(place);
    return remote || this.#located ? this.#move(remote, place, registers) : registers;
  }

  /** See ControllerHost. */
  doubt(registers: AdminRegisters): Promise<AdminRegisters | undefined> | undefined {
    const place = new AdminPlace(registers);
    const answer = this.active ? undefined : this.#shared.ask(place);
    return answer && this.#decide(answer, place, registers);
  }

  async #decide(
    answer: Promise<boolean>,
    place: AdminPlace,
    registers: AdminRegisters,
  ): Promise<AdminRegisters | undefined> {
    const attempt = this.#attempt;
    const rung = Atomics.load(this.#doorbells, ADMIN_TAIL);
    const isShared = await answer;
    if (isShared || attempt !== this.#attempt) {
      return undefined;
    }
    const found = await this.#move(true, place, registers);
    // What the host has rung already is not to be lost with the doorbells of the queue that began anew.
    Atomics.compareExchange(this.#doorbells, ADMIN_TAIL, 0, rung);
    return found;
  }

  /** The host has memory for its admin queues, mapped or not. */
  #isThere({ asq, acq, sqSize, cqSize }: AdminPlace): boolean {
    const { memory } = this.#parts;
    return (
      Math.min(sqSize, cqSize) >= 2 &&
      memory.holds(asq, sqSize * SQE_SIZE, false) &&
      memory.holds(acq, cqSize * CQE_SIZE, true)
    );
  }

  #isUnshared({ asq, acq }: AdminPlace): boolean {
    const { memory } = this.#parts;
    return memory.isUnshared(asq) || memory.isUnshared(acq);
  }

  async #move(
    remote: boolean,
    place: AdminPlace,
    registers: AdminRegisters,
  ): Promise<AdminRegisters> {
    const attempt = this.#attempt;
    this.#moving = this.#moving.catch(() => {}).then(() => this.#locate(remote));
    await this.#moving;
    if (!remote || attempt !== this.#attempt) {
      return registers;
    }
    return this.#begin(place);
  }

  async #locate(remote: boolean): Promise<void> {
    if (remote === this.#located) {
      return;
    }
    const { queues, vectors, doorbells } = this.#parts;
    if (!remote) {
      await queues.relocate(undefined);
      this.#located = false;
      return;
    }
    this.#stand ??= this.#makeStand();
    const { staging, eventfd, seen } = this.#stand;
    await queues.relocate({
      doorbells: this.#stand.doorbells,
      // Main writes there, and wakes the reactor.
      trapped: true,
      adaptiveInterrupts: false,
      memory: staging.memory,
      eventfds: () => Array(vectors).fill(eventfd),
      watch: { page: doorbells, seen: seen.buffer as SharedArrayBuffer },
    });
    this.#located = true;
  }

  #makeStand(): Stand {
    const eventfd = native.eventfdCreate();
    const poll = new native.FdPoll(eventfd, () => {
      native.eventfdRead(eventfd);
      this.#relay?.completed();
    });
    poll.start(true, false);
    return {
      staging: new Staging(native),
      doorbells: new SharedArrayBuffer(DOORBELLS_BYTES),
      seen: new Int32Array(new SharedArrayBuffer(PAGE_WORDS_BYTES)),
      eventfd,
      poll,
    };
  }

  /** Where the controller finds its admin queues from now on. */
  #begin(place: AdminPlace): AdminRegisters {
    const { messages, memory, queues } = this.#parts;
    const { staging, doorbells, seen } = this.#stand!;
    if (messages.maxBytes < MIN_REMOTE_MESSAGE_BYTES) {
      throw new Error(
        `the VM does not share its memory, and takes ${messages.maxBytes} bytes in a message only`,
      );
    }
    if (this.#parts.required) {
      throw new Error(
        'the VM does not share its memory (QEMU: memory-backend-memfd with share=on; Cloud Hypervisor: --memory shared=on), and such VMs are refused here (require_shared_memory)',
      );
    }
    this.#tell();
    const stagedDoorbells = new Int32Array(doorbells);
    this.#relay = new Relay(
      {
        ...this.#parts,
        memory: new RemoteMemory({
          maxBytes: messages.maxBytes,
          holds: (iova, bytes, write) => memory.holds(iova, bytes, write),
          read: (iova, into) => messages.read(iova, into),
          write: (iova, data) => messages.write(iova, data),
        }),
        staging,
        doorbells: this.#doorbells,
        stagedDoorbells,
        clearDoorbell: (index) => {
          // What was seen there last is the value of a queue that is gone: the same value would not be told of.
          Atomics.store(this.#doorbells, index, 0);
          Atomics.store(seen, index, 0);
        },
        ring: (qid) => {
          if (qid === 0) {
            this.#parts.ringAdmin();
          } else {
            queues.wake(qid);
          }
        },
        fail: (code) =>
          this.#parts.fail(
            `the VM does not share its memory (QEMU: share=on; Cloud Hypervisor: shared=on), and a message that asked for it got ${code}`,
          ),
      },
      place,
    );
    const entries = REMOTE_ADMIN_ENTRIES;
    return {
      aqa: Aqa.encode({ asqsZ: entries - 1, acqsZ: entries - 1 }),
      asq: staging.sq(0, entries).iova,
      acq: staging.cq(0, entries).iova,
    };
  }

  /** Once a client. */
  #tell(): void {
    if (!this.#told) {
      this.#told = true;
      this.#parts.log.warn(
        'the VM does not share its memory: it is reached by messages, which is slow. It is fast with shared memory (QEMU: memory-backend-memfd with share=on; Cloud Hypervisor: --memory shared=on)',
      );
    }
  }

  // --- what happens while messages are used -------------------------------------------------------------------------

  /** The controller takes commands. */
  open(): void {
    this.#relay?.open();
  }

  /** The host has rung, as a message said, or a reactor that watches its doorbells. */
  rung(): void {
    const seen = this.#stand?.seen;
    if (this.#relay !== undefined && seen !== undefined) {
      // Said before it is looked at: what comes in between is told again.
      for (let index = 0; index < PAGE_DOORBELLS; index++) {
        Atomics.store(seen, index, Atomics.load(this.#doorbells, index));
      }
      this.#relay.rung();
    }
  }

  /** A reactor has told of doorbells. */
  toldOfPage(): void {
    if (this.#stand !== undefined) {
      Atomics.add(this.#stand.seen, PageWord.TAKEN, 1);
    }
    this.rung();
  }

  /** The controller has completed admin commands. */
  completed(): void {
    this.#relay?.completed();
  }

  memoryChanged(): void {
    this.#relay?.memoryChanged();
  }

  signalPending(): void {
    this.#relay?.signalPending();
  }

  /** The host leaves the controller. What is under way is given up: nothing waits for its VMM. */
  stop(): void {
    this.#attempt = {};
    if (this.#relay !== undefined) {
      this.#relay.stop();
      this.#relay = undefined;
      this.#parts.messages.abandon(0, IOVA_END);
    }
  }

  /** No reactor knows the controller any more. */
  close(): void {
    this.stop();
    if (this.#stand !== undefined) {
      this.#stand.poll.close();
      closeSync(this.#stand.eventfd);
      this.#stand = undefined;
    }
  }
}
