/** The interrupts of one client's device, between its eventfds, the reactors that signal them, and the admin queue. Owned by main. */
import { native } from '../native/index.ts';
import type { Controller } from '../nvme/controller.ts';
import { adoptEventfds, type CloseDescriptors, type Interrupts } from '../pci/interrupts.ts';
import { PciIrq } from '../spec/vfio-user.ts';
import type { IoQueues } from './queues.ts';

export class DeviceVectors {
  readonly #interrupts: Interrupts;
  readonly #queues: IoQueues;
  readonly #controller: Controller;
  readonly #close: CloseDescriptors;

  constructor(
    interrupts: Interrupts,
    queues: IoQueues,
    controller: Controller,
    close: CloseDescriptors,
  ) {
    this.#interrupts = interrupts;
    this.#queues = queues;
    this.#controller = controller;
    this.#close = close;
  }

  /** The client connects eventfds. Resolves when those before are no longer signalled. */
  async connect(index: number, start: number, fds: readonly (number | undefined)[]): Promise<void> {
    adoptEventfds(fds, this.#close);
    if (index === PciIrq.MSIX) {
      await this.#replaced(this.#interrupts.setMsix(start, fds));
    } else if (index === PciIrq.INTX) {
      await this.#replaced(this.#interrupts.setIntx(fds[0]));
    } else {
      // ERR and REQ: this device has no errors to report outside NVMe, and never asks to be removed.
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
    const table = this.#interrupts.table();
    fire.forEach((wanted, i) => {
      const fd = table[start + i] ?? -1;
      if (wanted && fd >= 0 && (index === PciIrq.MSIX || index === PciIrq.INTX)) {
        native.eventfdSignal(fd);
      }
    });
  }

  mask(index: number, which: readonly boolean[], mask: boolean): void {
    if (index === PciIrq.INTX && which[0] === true) {
      this.#interrupts.maskIntx(mask);
      this.changed();
    }
  }

  /** Resolves when the eventfds of the index are no longer signalled. */
  async disable(index: number): Promise<void> {
    if (index === PciIrq.MSIX) {
      await this.#replaced(this.#interrupts.disableMsix());
    } else if (index === PciIrq.INTX) {
      await this.#replaced(this.#interrupts.setIntx(undefined));
    }
  }

  /** The vectors' eventfds are others now; the old ones are closed when no reactor signals them any more. */
  async #replaced(old: readonly number[]): Promise<void> {
    await this.#queues.eventfdsChanged();
    this.#close(old);
    this.#resignalAdmin();
  }

  /** Vectors were masked or unmasked. As `#replaced`, where no descriptor goes: nobody needs to wait. */
  changed(): void {
    // A reactor that cannot has failed the controller.
    this.#queues.eventfdsChanged().catch(() => {});
    this.#resignalAdmin();
  }

  #resignalAdmin(): void {
    if (this.#controller.adminPending) {
      this.signalAdmin();
    }
  }

  /** Completions were posted to the admin CQ. */
  signalAdmin(): void {
    const fd = this.#interrupts.table()[0];
    if (fd >= 0) {
      native.eventfdSignal(fd);
    }
  }
}
