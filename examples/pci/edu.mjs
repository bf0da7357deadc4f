// QEMU's educational device, as its docs/specs/edu describes it: an inverter, factorials, interrupts by pin or MSI, and DMA.
//
//   node examples/pci/edu.mjs --socket-path=/tmp/edu
import { PciFunction } from 'doorbell-nvme/vfio-user';
import { runBackend } from './backend.mjs';

const IDENTIFICATION = 0x010000ed;
const REGISTER = { ID: 0x00, LIVE: 0x04, FACTORIAL: 0x08, STATUS: 0x20, IRQ_STATUS: 0x24 };
const IRQ_RAISE = 0x60;
const IRQ_ACK = 0x64;
const DMA = { SOURCE: 0x80, DESTINATION: 0x88, COUNT: 0x90, COMMAND: 0x98 };

const STATUS_COMPUTING = 1;
const STATUS_IRQ = 0x80;
const IRQ_FACTORIAL = 0x1;
const IRQ_DMA = 0x100;
const DMA_START = 1;
const DMA_TO_GUEST = 2;
const DMA_IRQ = 4;

/** The device's own memory, as DMA addresses it, and the addresses that it can send: 28 bits. */
const BUFFER = 0x40000;
const BUFFER_BYTES = 4096;
const DMA_MASK = (1n << 28n) - 1n;
const DMA_DELAY_MS = 100;

class Edu {
  live = 0;
  factorial = 0;
  status = 0;
  irqStatus = 0;
  buffer = new Uint8Array(BUFFER_BYTES);
  dma = new Map(Object.values(DMA).map((register) => [register, 0n]));
  /** @type {NodeJS.Timeout | undefined} */
  timer;

  /** @param {import('doorbell-nvme/vfio-user').Client} client */
  constructor(client) {
    this.pci = new PciFunction(client, {
      identity: {
        vendorId: 0x1234,
        deviceId: 0x11e8,
        revision: 0x10,
        subsystemVendorId: 0x1af4,
        subsystemId: 0x1100,
        classCode: 0xff,
      },
      conventional: true,
      interrupts: { intx: true, msi: 1 },
      bars: [
        {
          index: 0,
          size: 2 ** 20,
          read: (offset, into) => {
            const value = new BigUint64Array([this.read(offset, into.length)]);
            into.set(new Uint8Array(value.buffer).subarray(0, into.length));
          },
          write: (offset, data) => {
            const value = new BigUint64Array(1);
            new Uint8Array(value.buffer).set(data.subarray(0, 8));
            this.write(offset, data.length, value[0]);
          },
        },
      ],
      on: { reset: () => this.reset(), gone: () => this.reset() },
    });
  }

  reset() {
    clearTimeout(this.timer);
    this.status = 0;
    this.irqStatus = 0;
    for (const register of this.dma.keys()) this.dma.set(register, 0n);
  }

  /** @param {number} bits */
  raise(bits) {
    this.irqStatus = (this.irqStatus | bits) >>> 0;
    const { irq } = this.pci;
    if (this.irqStatus !== 0 && !irq.signal(0) && !irq.usesMessages) irq.assert();
  }

  /** @param {number} bits */
  lower(bits) {
    this.irqStatus = (this.irqStatus & ~bits) >>> 0;
    if (this.irqStatus === 0) this.pci.irq.deassert();
  }

  /**
   * @param {number} register
   * @param {number} width
   * @returns {bigint} all ones where nothing is
   */
  read(register, width) {
    const dma = this.dma.get(register);
    if (dma !== undefined && (width === 4 || width === 8)) return dma;
    const values = {
      [REGISTER.ID]: IDENTIFICATION,
      [REGISTER.LIVE]: this.live,
      [REGISTER.FACTORIAL]: this.factorial,
      [REGISTER.STATUS]: this.status,
      [REGISTER.IRQ_STATUS]: this.irqStatus,
    };
    const value = width === 4 ? values[register] : undefined;
    return value === undefined ? ~0n : BigInt(value);
  }

  /**
   * @param {number} register
   * @param {number} width
   * @param {bigint} value
   */
  write(register, width, value) {
    if (this.dma.has(register) && (width === 4 || width === 8)) {
      this.writeDma(register, value);
      return;
    }
    if (width !== 4) return;
    const bits = Number(value);
    switch (register) {
      case REGISTER.LIVE:
        this.live = ~bits >>> 0;
        break;
      case REGISTER.FACTORIAL:
        this.computeFactorial(bits);
        break;
      case REGISTER.STATUS:
        this.status = (this.status & ~STATUS_IRQ) | (bits & STATUS_IRQ);
        break;
      case IRQ_RAISE:
        this.raise(bits);
        break;
      case IRQ_ACK:
        this.lower(bits);
        break;
    }
  }

  /** @param {number} n a product of more than 34 numbers is 0 in 32 bits */
  computeFactorial(n) {
    if (this.status & STATUS_COMPUTING) return;
    this.status |= STATUS_COMPUTING;
    this.timer = setTimeout(() => {
      let product = 1;
      for (let i = 2; i <= n && product !== 0; i++) product = Math.imul(product, i) >>> 0;
      this.factorial = product;
      this.status &= ~STATUS_COMPUTING;
      if (this.status & STATUS_IRQ) this.raise(IRQ_FACTORIAL);
    });
  }

  /**
   * @param {number} register
   * @param {bigint} value
   */
  writeDma(register, value) {
    if (Number(this.dma.get(DMA.COMMAND)) & DMA_START) return;
    this.dma.set(register, value);
    if (register === DMA.COMMAND && Number(value) & DMA_START) {
      setTimeout(() => this.runDma(), DMA_DELAY_MS);
    }
  }

  async runDma() {
    const command = Number(this.dma.get(DMA.COMMAND));
    if (!(command & DMA_START)) return; // It was reset.
    const source = this.dma.get(DMA.SOURCE) ?? 0n;
    const destination = this.dma.get(DMA.DESTINATION) ?? 0n;
    const toGuest = (command & DMA_TO_GUEST) !== 0;
    const at = Number(toGuest ? source : destination) - BUFFER;
    const count = Number(this.dma.get(DMA.COUNT));
    try {
      if (at < 0 || at + count > BUFFER_BYTES) throw new RangeError('outside the buffer');
      const piece = this.buffer.subarray(at, at + count);
      if (toGuest) await this.pci.dma.write(Number(destination & DMA_MASK), piece);
      else await this.pci.dma.read(Number(source & DMA_MASK), piece);
    } catch (error) {
      console.log(`DMA of ${count} bytes: ${error}`);
    }
    this.dma.set(DMA.COMMAND, BigInt(command & ~DMA_START));
    if (command & DMA_IRQ) this.raise(IRQ_DMA);
  }
}

runBackend('edu', { accept: (client) => new Edu(client).pci });
