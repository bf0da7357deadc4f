// An ACCES PCI-IDIO-16: 16 outputs, 16 inputs, an interrupt when an input changes. Linux has a driver for it, gpio-pci-idio-16. Outputs are
// printed when the guest changes them; inputs change by lines on standard input, as `3=1`.
//
//   node examples/pci/gpio-card.mjs --socket-path=/tmp/gpio
import { createInterface } from 'node:readline';
import { PciFunction } from 'doorbell-nvme/vfio-user';
import { runBackend } from './backend.mjs';

/** Of BAR 2, a byte each. */
const OUT_0_7 = 0;
const IN_0_7 = 1; // Written: clears the interrupt.
const IRQ_CONTROL = 2; // Read: enables interrupts. Written: disables them.
const OUT_8_15 = 4;
const IN_8_15 = 5;
const IRQ_STATUS = 6;

/** Of IRQ_STATUS: which inputs changed, and that the card interrupts. */
const CHANGED_0_7 = 1;
const CHANGED_8_15 = 2;
const PENDING = 4;

let inputs = 0;
/** @type {Card | undefined} */
let card;

class Card {
  outputs = 0;
  enabled = false;
  status = 0;

  /** @param {import('doorbell-nvme/vfio-user').Client} client */
  constructor(client) {
    this.pci = new PciFunction(client, {
      identity: { vendorId: 0x494f, deviceId: 0x0dc8, classCode: 0xff },
      conventional: true,
      interrupts: { intx: true },
      bars: [
        {
          index: 2,
          kind: 'io',
          size: 8,
          read: (offset, into) => into.set(into.map((_, i) => this.read(offset + i))),
          write: (offset, data) => {
            for (const [i, value] of data.entries()) this.write(offset + i, value);
          },
        },
      ],
      on: { reset: () => this.reset() },
    });
  }

  reset() {
    this.enabled = false;
    this.clear();
    this.setOutputs(0);
  }

  clear() {
    this.status = 0;
    this.pci.irq.deassert();
  }

  /** @param {number} outputs */
  setOutputs(outputs) {
    if (outputs !== this.outputs) console.log(`outputs 0x${outputs.toString(16).padStart(4, '0')}`);
    this.outputs = outputs;
  }

  /** @param {number} changed */
  inputsChanged(changed) {
    if (!this.enabled) return;
    this.status |=
      PENDING | (changed & 0xff ? CHANGED_0_7 : 0) | (changed & 0xff00 ? CHANGED_8_15 : 0);
    this.pci.irq.assert();
  }

  /** @param {number} register */
  read(register) {
    switch (register) {
      case OUT_0_7:
        return this.outputs & 0xff;
      case IN_0_7:
        return inputs & 0xff;
      case IRQ_CONTROL:
        this.enabled = true;
        return 0;
      case OUT_8_15:
        return this.outputs >> 8;
      case IN_8_15:
        return inputs >> 8;
      case IRQ_STATUS:
        return this.status;
      default:
        return 0;
    }
  }

  /**
   * @param {number} register
   * @param {number} value
   */
  write(register, value) {
    switch (register) {
      case OUT_0_7:
        return this.setOutputs((this.outputs & 0xff00) | value);
      case IN_0_7:
        return this.clear();
      case IRQ_CONTROL:
        this.enabled = false;
        return this.clear();
      case OUT_8_15:
        return this.setOutputs((this.outputs & 0x00ff) | (value << 8));
    }
  }
}

runBackend('gpio', {
  accept: (client) => {
    card = new Card(client);
    return card.pci;
  },
});

createInterface({ input: process.stdin }).on('line', (line) => {
  const [, input, level] = /^(\d+)=([01])$/.exec(line) ?? [];
  if (input === undefined || Number(input) > 15) {
    console.error(`not an input and its level, as 3=1: ${line}`);
    return;
  }
  const before = inputs;
  const bit = 1 << Number(input);
  inputs = level === '1' ? inputs | bit : inputs & ~bit;
  if (inputs !== before) card?.inputsChanged(bit);
});
process.stdin.unref?.();
