/**
 * What main has done to the namespaces of a subsystem by itself: self-tests, formats, sanitize operations. The reactors know it as a
 * controller without queues, so that what is done goes through the request layer, with a share of its own, and ends with its namespace.
 * Owned by main.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { DOORBELLS_BYTES, MAX_TRANSFER_BYTES } from '../limits.ts';
import { GuestMemory } from '../memory/guest.ts';
import { native } from '../native/index.ts';
import { NO_COALESCING } from '../nvme/features/coalescing.ts';
import { type Operation, QUEUE_WORDS_BYTES } from '../nvme/plane/messages.ts';
import { ReactorLostError } from '../reactor/handle.ts';
import type { ReactorPool } from '../reactor/pool.ts';
import { Status } from '../spec/nvme.ts';
import type { Logger } from '../util/log.ts';
import { Attachments } from './attachments.ts';
import { DeviceNamespaces } from './device-namespaces.ts';
import type { AccessChange, Namespace, NamespaceUser, SubsystemView } from './types.ts';

/** How long a disk may take over the last operation of a subsystem that goes, before nobody waits for it any more. Milliseconds. */
const END_ANYWAY_MS = 2000;

/** What the reactors know as a controller. */
interface Session {
  readonly id: number;
  readonly namespaces: DeviceNamespaces;
  readonly attachments: Attachments;
  users: number;
}

export class Maintenance implements NamespaceUser {
  readonly #subsystem: SubsystemView;
  readonly #reactors: ReactorPool;
  readonly #log: Logger;
  #session: Session | undefined;
  #isEnded = false;

  constructor(subsystem: SubsystemView, reactors: ReactorPool, log: Logger) {
    this.#subsystem = subsystem;
    this.#reactors = reactors;
    this.#log = log;
  }

  /** Has the namespaces open while `work` goes on. After the end, `work` finds that no operation is carried out. */
  async during<T>(work: () => Promise<T>): Promise<T> {
    if (this.#isEnded) {
      return work();
    }
    this.#session ??= this.#open();
    const session = this.#session;
    session.users += 1;
    try {
      return await work();
    } finally {
      session.users -= 1;
      // At the end of all it is closed already.
      if (session.users === 0 && this.#session === session) {
        this.#session = undefined;
        await this.#close(session);
      }
    }
  }

  /**
   * No operation is carried out any more: the disks may soon be another's. Resolves when none is under way, nor waits; or, if a disk does not
   * answer, without it: its blocks are kept from others until it does.
   */
  async end(): Promise<void> {
    this.#isEnded = true;
    const session = this.#session;
    if (session === undefined) {
      return;
    }
    this.#session = undefined;
    const closed = this.#close(session).catch((error: unknown) => {
      this.#log.error({ err: error }, 'the operations of a subsystem that goes did not all end');
    });
    const late = delay(END_ANYWAY_MS, true, { ref: false });
    if ((await Promise.race([closed, late])) === true) {
      this.#log.warn('a disk holds on to an operation of a subsystem that goes');
    }
  }

  #open(): Session {
    const reactors = this.#reactors;
    let attachments: Attachments | undefined;
    const id = reactors.register({
      told: () => {},
      reactorLost: (reactor, left) => attachments?.lose(reactor, left),
    });
    const namespaces = new DeviceNamespaces(id, this.#subsystem, reactors, () => undefined);
    attachments = new Attachments(
      {
        controller: id,
        pool: reactors,
        log: this.#log,
        doorbells: new SharedArrayBuffer(DOORBELLS_BYTES),
        trapped: true,
        memory: new GuestMemory(native),
        row: namespaces.refusedRow,
        maxTransferBytes: MAX_TRANSFER_BYTES,
        writeThrough: () => false,
        coalescing: () => NO_COALESCING,
        copyFormats: () => 0,
        namespaces: () => namespaces.describeAll(),
        lost: () => {},
      },
      new SharedArrayBuffer(QUEUE_WORDS_BYTES),
    );
    return { id, namespaces, attachments, users: 0 };
  }

  async #close({ id, namespaces, attachments }: Session): Promise<void> {
    await attachments.tellAll({ kind: 'detach' });
    attachments.clear();
    namespaces.close();
    this.#reactors.unregister(id);
  }

  /** Carries an operation out, by whichever reactor lives. Only `during` something, and before the end. Resolves with a status. */
  async operate(nsid: number, operation: Operation): Promise<number> {
    for (let tries = this.#reactors.count; tries > 0; tries--) {
      const session = this.#session;
      if (session === undefined) {
        return Status.ABORTED_BY_REQUEST;
      }
      const { attachments } = session;
      const [reactor = this.#reactors.placement.placeNothing()] = attachments.reactors;
      try {
        void attachments.attach(reactor);
        return await attachments.ask(reactor, { kind: 'operate', nsid, ...operation });
      } catch (error) {
        if (!(error instanceof ReactorLostError)) {
          throw error;
        }
      }
    }
    return Status.INTERNAL_ERROR;
  }

  async #tell(tell: (session: Session) => Promise<unknown>): Promise<void> {
    if (this.#session !== undefined) {
      await tell(this.#session);
    }
  }

  addNamespace(namespace: Namespace): Promise<void> {
    return this.#tell(({ attachments, namespaces }) =>
      attachments.tellAll({ kind: 'add-namespace', namespace: namespaces.describe(namespace) }),
    );
  }

  /** It is not for this. */
  async changeAccess(_change: AccessChange): Promise<void> {}

  limitNamespace(nsid: number, limits: SharedArrayBuffer | undefined): Promise<void> {
    return this.#tell(({ attachments }) => attachments.tellAll({ kind: 'limit', nsid, limits }));
  }

  removeNamespace(nsid: number): Promise<void> {
    return this.#tell(async ({ attachments, namespaces }) => {
      await attachments.tellAll({ kind: 'remove-namespace', nsid });
      namespaces.forget(nsid);
    });
  }
}
