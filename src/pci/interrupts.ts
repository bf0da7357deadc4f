/**
 * Where the device's vectors signal: MSI-X eventfds, or one for INTx. Owns the eventfds that the client passed. Owned by main.
 *
 * MSI-X counts as enabled while the client has any of its vectors connected; the client emulates the table and the mask bits.
 */
import { MAX_UNMASKS, UNMASK_PERIOD_MS } from '../limits.ts';
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

/** Closes descriptors that a client sent; -1 stands for none. */
export type CloseDescriptors = (fds: readonly number[]) => void;

export class Interrupts {
  readonly #msix: number[];
  #intx = NONE;
  #intxMasked = false;
  /** INTx is switched off by the command register. */
  #intxDisabled = false;
  /** INTMS: vectors masked while interrupts are pin-based. */
  #pinMask = 0;
  #resample: Resample | undefined;
  readonly #onUnmask: () => void;
  readonly #close: CloseDescriptors;

  /** `onUnmask`: the client says that INTx may fire again. */
  constructor(vectors: number, onUnmask: () => void, close: CloseDescriptors) {
    this.#msix = new Array(vectors).fill(NONE);
    this.#onUnmask = onUnmask;
    this.#close = close;
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
    return [...this.disableMsix(), ...this.setIntx(undefined)];
  }
}

/**
 * Listens to an eventfd of the client, which decides how often that is heard: it may signal without end, or pass a semaphore
 * (EFD_SEMAPHORE), which stays readable for as many reads as its count. So there is an end to what is heard in a period; the rest of it
 * counts as one signal.
 */
class Resample {
  readonly fd: number;
  readonly #poll: FdPoll;
  readonly #onSignal: () => void;
  #heard = 0;
  #period: NodeJS.Timeout | undefined;

  constructor(fd: number, onSignal: () => void) {
    this.fd = fd;
    this.#onSignal = onSignal;
    this.#poll = new native.FdPoll(fd, () => this.#hear());
    this.#poll.start(true, false);
  }

  #hear(): void {
    this.#period ??= setTimeout(() => this.#nextPeriod(), UNMASK_PERIOD_MS);
    this.#heard += 1;
    if (this.#heard === MAX_UNMASKS) {
      this.#poll.stop();
    }
    native.eventfdRead(this.fd);
    this.#onSignal();
  }

  #nextPeriod(): void {
    this.#period = undefined;
    if (this.#heard >= MAX_UNMASKS) {
      this.#poll.start(true, false);
    }
    this.#heard = 0;
  }

  /** The descriptor is the caller's again. */
  close(): void {
    clearTimeout(this.#period);
    this.#poll.close();
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
