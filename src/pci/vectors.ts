/** The interrupts of one client's function, between the client's SET_IRQS and whoever signals them. Owned by main. */
import { native } from '../native/index.ts';
import { PciIrq } from '../spec/vfio-user.ts';
import { adoptEventfds, type CloseDescriptors, type Interrupts } from './interrupts.ts';

/** Who signals the vectors. */
export interface VectorUser {
  /** The eventfds of `Interrupts.table` are others now. Resolves when those before are no longer signalled. */
  vectorsChanged(): Promise<void>;
  /** Vectors were connected or unmasked: what waits to be heard is signalled again. */
  signalPending(): void;
}

export class Vectors {
  readonly #interrupts: Interrupts;
  readonly #user: VectorUser;
  readonly #close: CloseDescriptors;

  constructor(interrupts: Interrupts, user: VectorUser, close: CloseDescriptors) {
    this.#interrupts = interrupts;
    this.#user = user;
    this.#close = close;
  }

  /** The client connects eventfds. Resolves when those before are no longer signalled. */
  async connect(index: number, start: number, fds: readonly (number | undefined)[]): Promise<void> {
    adoptEventfds(fds, this.#close);
    if (index === PciIrq.MSIX || index === PciIrq.MSI) {
      const kind = index === PciIrq.MSIX ? 'msix' : 'msi';
      await this.#replaced(this.#interrupts.connect(kind, start, fds));
    } else if (index === PciIrq.INTX) {
      await this.#replaced(this.#interrupts.setIntx(fds[0]));
    } else {
      // ERR and REQ: functions here report no errors to the bus, and never ask to be removed.
      this.#close(fds.filter((fd) => fd !== undefined));
    }
  }

  /** The eventfd by which a client says that INTx may come again. */
  connectUnmask(index: number, fd: number | undefined): void {
    adoptEventfds([fd], this.#close);
    if (index === PciIrq.INTX) {
      this.#interrupts.setResample(fd);
    } else if (fd !== undefined) {
      this.#close([fd]);
    }
  }

  /** The client fires interrupts itself. */
  trigger(index: number, start: number, fire: readonly boolean[]): void {
    if (index === PciIrq.MSIX || index === PciIrq.MSI || index === PciIrq.INTX) {
      fire.forEach((wanted, i) => {
        if (wanted) {
          this.signal(start + i);
        }
      });
    }
  }

  /** Signals a vector, if it is connected and not masked: true then. */
  signal(vector: number): boolean {
    const fd = this.#interrupts.table()[vector] ?? -1;
    return fd >= 0 && native.eventfdSignal(fd) === 0;
  }

  mask(index: number, which: readonly boolean[], mask: boolean): void {
    if (index === PciIrq.INTX && which[0] === true) {
      this.#interrupts.maskIntx(mask);
      this.changed();
    }
  }

  /** Resolves when the eventfds of the index are no longer signalled. */
  async disable(index: number): Promise<void> {
    if (index === PciIrq.MSIX || index === PciIrq.MSI) {
      await this.#replaced(this.#interrupts.disconnect(index === PciIrq.MSIX ? 'msix' : 'msi'));
    } else if (index === PciIrq.INTX) {
      await this.#replaced(this.#interrupts.setIntx(undefined));
    }
  }

  /** The vectors' eventfds are others now; the old ones are closed when nobody signals them any more. */
  async #replaced(old: readonly number[]): Promise<void> {
    await this.#user.vectorsChanged();
    this.#close(old);
    this.#user.signalPending();
  }

  /** Vectors were masked or unmasked. As `#replaced`, where no descriptor goes: nobody needs to wait. */
  changed(): void {
    // Who could not has dealt with it.
    this.#user.vectorsChanged().catch(() => {});
    this.#user.signalPending();
  }
}
