/**
 * Where the device's vectors signal: MSI-X eventfds, or one for INTx. Owns the eventfds that the client passed. Owned by main.
 *
 * MSI-X counts as enabled while the client has any of its vectors connected; the client emulates the table and the mask bits.
 */
import { closeSync } from 'node:fs';
import { type FdPoll, native } from '../native/index.ts';

const NONE = -1;

export interface InterruptsDiagnosis {
  readonly mode: 'msix' | 'intx' | 'none';
  /** `masked`: of INTx; masks of MSI-X are the client's affair. */
  readonly vectors: readonly {
    readonly vector: number;
    readonly connected: boolean;
    readonly masked: boolean;
  }[];
}

export class Interrupts {
  readonly #msix: number[];
  #intx = NONE;
  #intxMasked = false;
  /** INTx is switched off by the command register. */
  #intxDisabled = false;
  /** INTMS: vectors masked while interrupts are pin-based. */
  #pinMask = 0;
  #resample: { readonly fd: number; readonly poll: FdPoll } | undefined;
  readonly #onUnmask: () => void;

  /** `onUnmask`: the client says that INTx may fire again. */
  constructor(vectors: number, onUnmask: () => void) {
    this.#msix = new Array(vectors).fill(NONE);
    this.#onUnmask = onUnmask;
  }

  /** The eventfd of each vector as things stand, or -1. */
  table(): number[] {
    if (this.#msix.some((fd) => fd !== NONE)) {
      return [...this.#msix];
    }
    const quiet = this.#intxMasked || this.#intxDisabled;
    return this.#msix.map((_, vector) =>
      quiet || ((this.#pinMask >>> (vector & 31)) & 1) === 1 ? NONE : this.#intx,
    );
  }

  /** Which interrupts the client connected, and what keeps each vector from signalling. For diagnosis. */
  describe(): InterruptsDiagnosis {
    const mode = this.#msix.some((fd) => fd !== NONE)
      ? 'msix'
      : this.#intx === NONE
        ? 'none'
        : 'intx';
    const vectors = this.#msix.map((fd, vector) => {
      const pinMasked = ((this.#pinMask >>> (vector & 31)) & 1) === 1;
      return mode === 'intx'
        ? { vector, connected: true, masked: this.#intxMasked || this.#intxDisabled || pinMasked }
        : { vector, connected: fd !== NONE, masked: false };
    });
    return { mode, vectors };
  }

  /** Connects MSI-X vectors. Returns the descriptors that are no longer used, to be closed once no reactor signals them. */
  setMsix(start: number, fds: readonly (number | undefined)[]): number[] {
    return fds.map((fd, i) => {
      const before = this.#msix[start + i];
      this.#msix[start + i] = fd ?? NONE;
      return before;
    });
  }

  disableMsix(): number[] {
    return this.setMsix(
      0,
      this.#msix.map(() => undefined),
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

  set pinMask(mask: number) {
    this.#pinMask = mask;
  }

  /** The eventfd that the client signals to unmask INTx. */
  setResample(fd: number | undefined): void {
    this.#resample?.poll.close();
    if (this.#resample !== undefined) {
      closeSync(this.#resample.fd);
      this.#resample = undefined;
    }
    if (fd !== undefined) {
      const poll = new native.FdPoll(fd, () => {
        native.eventfdRead(fd);
        this.#intxMasked = false;
        this.#onUnmask();
      });
      poll.start(true, false);
      this.#resample = { fd, poll };
    }
  }

  /** Disconnects everything. Returns the descriptors to be closed. */
  release(): number[] {
    this.setResample(undefined);
    return [...this.disableMsix(), ...this.setIntx(undefined)];
  }
}

/**
 * Takes over descriptors that a client passed. Refuses all of them, and closes them, if one is no eventfd: anything else could block
 * the thread that signals it.
 */
export function adoptEventfds(fds: readonly (number | undefined)[]): void {
  const given = fds.filter((fd) => fd !== undefined);
  try {
    given.forEach((fd) => {
      native.eventfdAdopt(fd);
    });
  } catch (error) {
    closeEventfds(given);
    throw error;
  }
}

/** Closes what `setMsix` and its like returned. */
export function closeEventfds(fds: readonly number[]): void {
  for (const fd of fds) {
    if (fd !== NONE) {
      closeSync(fd);
    }
  }
}
