/**
 * Where a function's vectors signal: eventfds of MSI-X or MSI, or one for INTx. Owns the eventfds that the client passed. Owned by main.
 *
 * MSI-X and MSI count as enabled while the client has any of their vectors connected; the client emulates tables and mask bits.
 */
import { native } from '../native/index.ts';
import { Resample } from './resample.ts';

const NONE = -1;

export interface InterruptsDiagnosis {
  readonly mode: 'msix' | 'msi' | 'intx' | 'none';
  /** `masked`: of INTx; masks of MSI-X are the client's affair. */
  readonly vectors: readonly {
    readonly vector: number;
    readonly connected: boolean;
    readonly masked: boolean;
  }[];
}

/** Closes descriptors that a client sent; -1 stands for none. */
export type CloseDescriptors = (fds: readonly number[]) => void;

/** Vectors of each kind; 0: it has none of them. */
export interface VectorCounts {
  readonly msix: number;
  readonly msi: number;
}

export type MessageKind = keyof VectorCounts;

export class Interrupts {
  /** Eventfds by vector. */
  readonly #connected: Readonly<Record<MessageKind, number[]>>;
  readonly #vectors: number;
  #intx = NONE;
  #intxMasked = false;
  /** INTx is switched off by the command register. */
  #intxDisabled = false;
  #pinMask = 0;
  #resample: Resample | undefined;
  readonly #onUnmask: () => void;
  readonly #close: CloseDescriptors;

  /** `onUnmask`: the client says that INTx may fire again. */
  constructor({ msix, msi }: VectorCounts, onUnmask: () => void, close: CloseDescriptors) {
    this.#connected = { msix: new Array(msix).fill(NONE), msi: new Array(msi).fill(NONE) };
    this.#vectors = Math.max(msix, msi, 1);
    this.#onUnmask = onUnmask;
    this.#close = close;
  }

  get #mode(): InterruptsDiagnosis['mode'] {
    const isUsed = (kind: MessageKind) => this.#connected[kind].some((fd) => fd !== NONE);
    return isUsed('msix') ? 'msix' : isUsed('msi') ? 'msi' : this.#intx !== NONE ? 'intx' : 'none';
  }

  get usesMessages(): boolean {
    return this.#mode === 'msix' || this.#mode === 'msi';
  }

  /** The function may interrupt by its pin: neither messages nor a mask are in the way. */
  get pinIsFree(): boolean {
    return this.#mode === 'intx' && !this.#intxMasked && !this.#intxDisabled;
  }

  /** The eventfd of each vector as things stand, or -1. A function that got fewer vectors of MSI than it has uses them in turn. */
  table(): number[] {
    const mode = this.#mode;
    const { msi, msix } = this.#connected;
    if (mode === 'msix') {
      return Array.from({ length: this.#vectors }, (_, vector) => msix[vector] ?? NONE);
    }
    if (mode === 'msi') {
      const granted = msi.findLastIndex((fd) => fd !== NONE) + 1;
      return Array.from({ length: this.#vectors }, (_, vector) => msi[vector % granted]);
    }
    const quiet = !this.pinIsFree;
    return Array.from({ length: this.#vectors }, (_, vector) =>
      quiet || ((this.#pinMask >>> (vector & 31)) & 1) === 1 ? NONE : this.#intx,
    );
  }

  /** Which interrupts the client connected, and what keeps each vector from signalling. For diagnosis. */
  describe(): InterruptsDiagnosis {
    const mode = this.#mode;
    const fds = this.table();
    const vectors = fds.map((fd, vector) =>
      mode === 'intx'
        ? { vector, connected: true, masked: fd === NONE }
        : { vector, connected: fd !== NONE, masked: false },
    );
    return { mode, vectors };
  }

  /** Connects vectors. Returns the descriptors that are no longer used, to be closed once nobody signals them. */
  connect(kind: MessageKind, start: number, fds: readonly (number | undefined)[]): number[] {
    const connected = this.#connected[kind];
    return fds.map((fd, i) => {
      const before = connected[start + i];
      connected[start + i] = fd ?? NONE;
      return before;
    });
  }

  disconnect(kind: MessageKind): number[] {
    return this.connect(
      kind,
      0,
      this.#connected[kind].map(() => undefined),
    );
  }

  setIntx(fd: number | undefined): number[] {
    const before = this.#intx;
    this.#intx = fd ?? NONE;
    return [before];
  }

  maskIntx(masked: boolean): void {
    this.#intxMasked = masked;
  }

  set intxDisabled(disabled: boolean) {
    this.#intxDisabled = disabled;
  }

  /** Vectors that are masked while interrupts are pin-based: a bit each, of every 32. */
  set pinMask(mask: number) {
    this.#pinMask = mask;
  }

  /** The eventfd that the client signals to unmask INTx. */
  setResample(fd: number | undefined): void {
    if (this.#resample !== undefined) {
      this.#resample.close();
      this.#close([this.#resample.fd]);
      this.#resample = undefined;
    }
    if (fd !== undefined) {
      this.#resample = new Resample(fd, () => {
        this.#intxMasked = false;
        this.#onUnmask();
      });
    }
  }

  /** Disconnects everything. Returns the descriptors to be closed. */
  release(): number[] {
    this.setResample(undefined);
    return [...this.disconnect('msix'), ...this.disconnect('msi'), ...this.setIntx(undefined)];
  }
}

/**
 * Takes over descriptors that a client passed. Refuses all of them, and closes them, if one is no eventfd: anything else could block
 * the thread that signals it.
 */
export function adoptEventfds(fds: readonly (number | undefined)[], close: CloseDescriptors): void {
  const given = fds.filter((fd) => fd !== undefined);
  try {
    given.forEach((fd) => {
      native.eventfdAdopt(fd);
    });
  } catch (error) {
    close(given);
    throw error;
  }
}
