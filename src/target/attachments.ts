/**
 * The reactors that know a controller: each learns of it when it gets the first queue (or the watch over the admin doorbells), with all memory
 * and namespaces of that moment; from then on every change is sent to it. Requests to one reactor are carried out in the order sent. Owned by main.
 */
import { REGIONS_PER_MESSAGE } from '../limits.ts';
import type { GuestMemory } from '../memory/guest.ts';
import type { Coalescing } from '../nvme/features/coalescing.ts';
import type { NamespaceDescriptor, NvmeRequest } from '../nvme/plane/messages.ts';
import type { ShadowPages } from '../nvme/shadow.ts';
import { ReactorLostError } from '../reactor/handle.ts';
import type { ReactorPool } from '../reactor/pool.ts';
import { Status } from '../spec/nvme.ts';
import { ErrnoError } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';

/** A request without the controller it is about. */
export type Ask<T = NvmeRequest> = T extends NvmeRequest ? Omit<T, 'controller'> : never;

/** After these the guest may do as it likes with memory that it gave to commands. */
const TAKES_AWAY = new Set<NvmeRequest['kind']>(['detach', 'reset', 'unmap', 'delete-sq']);

export interface AttachmentsOptions {
  readonly controller: number;
  readonly pool: ReactorPool;
  readonly log: Logger;
  readonly doorbells: SharedArrayBuffer;
  /** The client cannot map the doorbells: what it writes comes through main. */
  readonly trapped: boolean;
  readonly memory: GuestMemory;
  /** Counter row of refused commands. */
  readonly row: number;
  readonly maxTransferBytes: number;
  readonly writeThrough: () => boolean;
  readonly coalescing: () => Coalescing;
  readonly copyFormats: () => number;
  readonly namespaces: () => NamespaceDescriptor[];
  /** Queues are gone that the guest still counts on. */
  readonly lost: (reason: string) => void;
}

/** Where the controller's queues are. */
export type AttachmentsPlace = Pick<AttachmentsOptions, 'doorbells' | 'trapped' | 'memory'>;

export class Attachments {
  readonly #options: AttachmentsOptions;
  /** As a reactor learns it that gets to know the controller. */
  place: AttachmentsPlace;
  /** See QueueWord. */
  readonly #progress: SharedArrayBuffer;
  /** Reactor → the status with which it got to know the controller. */
  readonly #attached = new Map<number, Promise<number>>();
  /** Reactors that died, and have operations under way that use the guest's memory. */
  readonly #leaving = new Set<Promise<void>>();
  shadow: ShadowPages | undefined;
  /** The client's, or -1. */
  socket = -1;

  constructor(options: AttachmentsOptions, progress: SharedArrayBuffer) {
    this.#options = options;
    this.place = options;
    this.#progress = progress;
  }

  /** Those that know of the controller. */
  get reactors(): number[] {
    return [...this.#attached.keys()];
  }

  /** Resolves with the status. Rejects with ReactorLostError if the reactor is dead or dies meanwhile. */
  ask(reactor: number, ask: Ask): Promise<number> {
    const { pool, controller } = this.#options;
    return pool.request(reactor, { ...ask, controller } as NvmeRequest);
  }

  /** Asks a reactor that may have died: then what was to be taken away is gone, when its last operation is over. */
  async tell(reactor: number, ask: Ask): Promise<number> {
    try {
      return await this.ask(reactor, ask);
    } catch (error) {
      if (error instanceof ReactorLostError) {
        await this.left(ask);
        return Status.SUCCESS;
      }
      throw error;
    }
  }

  /** Tells every reactor that knows the controller. Resolves as `firstFailure` does. */
  async tellAll(ask: Ask): Promise<number> {
    const told = [...this.#attached.keys()].map((reactor) => this.tell(reactor, ask));
    return firstFailure([...told, this.left(ask)]);
  }

  /** Reactors that died are not asked, but waited for, where something is taken away that they may use. */
  async left({ kind }: Ask): Promise<number> {
    if (TAKES_AWAY.has(kind)) {
      await Promise.all(this.#leaving);
    }
    return Status.SUCCESS;
  }

  /** Tells every reactor. A refusal may have left the controller changed by half there: it fails, and the call rejects. */
  async mustTellAll(ask: Ask, what: string): Promise<void> {
    if ((await this.tellAll(ask)) !== Status.SUCCESS) {
      const reason = `a reactor could not ${what}`;
      this.#options.lost(reason);
      throw new ErrnoError('EIO', reason);
    }
  }

  /** Has a reactor know the controller, if it does not. Resolves with a status. */
  attach(reactor: number): Promise<number> {
    const known = this.#attached.get(reactor);
    if (known !== undefined) {
      return known;
    }
    const { doorbells, trapped, memory } = this.place;
    const { row, maxTransferBytes } = this.#options;
    const { writeThrough, coalescing, copyFormats, namespaces } = this.#options;
    const attach = this.tell(reactor, {
      kind: 'attach',
      doorbells,
      trapped,
      shadow: this.shadow,
      socket: this.socket,
      row,
      maxTransferBytes,
      writeThrough: writeThrough(),
      coalescing: coalescing(),
      copyFormats: copyFormats(),
      namespaces: namespaces(),
      progress: this.#progress,
    });
    // In pieces, since the reactor has other controllers to serve.
    const { regions } = memory;
    const maps: Promise<number>[] = [];
    for (let i = 0; i < regions.length; i += REGIONS_PER_MESSAGE) {
      const some = regions.slice(i, i + REGIONS_PER_MESSAGE);
      maps.push(this.tell(reactor, { kind: 'map', regions: some }));
    }
    const mapped = firstFailure(maps);
    const attached = firstFailure([attach, mapped]);
    this.#attached.set(reactor, attached);
    void attach.then((status) => {
      if (status !== Status.SUCCESS) {
        this.#options.log.error({ reactor }, 'a reactor could not open every namespace');
      }
    });
    void mapped.then((status) => {
      if (status !== Status.SUCCESS) {
        this.#options.lost(`reactor ${reactor} could not map the guest's memory`);
      }
    });
    return attached;
  }

  /** A reactor died. `left`: no operation of it uses the guest's memory any more. */
  lose(reactor: number, left: Promise<void>): void {
    this.#attached.delete(reactor);
    const leaving = left.finally(() => this.#leaving.delete(leaving));
    this.#leaving.add(leaving);
  }

  /** No reactor knows the controller any more. */
  clear(): void {
    this.#attached.clear();
  }
}

/** Resolves, when all have, with the first status that is not success, if there is one. */
async function firstFailure(statuses: readonly Promise<number>[]): Promise<number> {
  const all = await Promise.all(statuses);
  return all.find((status) => status !== Status.SUCCESS) ?? Status.SUCCESS;
}
