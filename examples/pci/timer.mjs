// A timer that reaches memory by messages, after the sample of libvfio-user. BAR 0 has 16 bytes:
//
//   0  written: a time in seconds since 1970, when it interrupts (INTx); read: how many seconds ago that was
//   8  an address of the guest's memory, 0 at first
//
// When the time has come it interrupts, then writes 4 KiB, in the memory itself if the client shares it, behind the 4 KiB at the address, which it writes
// by messages, in four pieces, and reads again in two. BAR 1 is memory, of which the client may map the middle.
//
//   node examples/pci/timer.mjs --socket-path=/tmp/timer
import { PciFunction, RegionMemory } from 'doorbell-nvme/vfio-user';
import { runBackend } from './backend.mjs';

const PIECE = 1024;
const PIECES = 4;
/** setTimeout takes no longer times. Milliseconds. */
const MAX_DELAY = 2 ** 31 - 1;

class Timer {
  registers = new BigUint64Array(2);
  memory = new RegionMemory(0x4000);
  /** @type {NodeJS.Timeout | undefined} */
  timeout;

  /** @param {import('doorbell-nvme/vfio-user').Client} client */
  constructor(client) {
    this.client = client;
    const { bytes } = this.memory;
    const registers = new Uint8Array(this.registers.buffer);
    this.pci = new PciFunction(client, {
      identity: {
        vendorId: 0xdead,
        deviceId: 0xbeef,
        subsystemVendorId: 0xcafe,
        subsystemId: 0xbabe,
        classCode: 0xff,
      },
      conventional: true,
      // A client may share any file: this program has no other one, which would wait for it.
      mapFiles: true,
      interrupts: { intx: true },
      bars: [
        {
          index: 0,
          size: 16,
          read: (offset, into) => {
            const now = new BigInt64Array([BigInt(seconds()) - this.registers[0]]);
            const image = [...new Uint8Array(now.buffer), ...registers.subarray(8)];
            into.set(image.slice(offset, offset + into.length));
          },
          write: (offset, data) => {
            registers.set(data, offset);
            if (offset < 8) this.arm();
          },
        },
        {
          index: 1,
          size: 0x4000,
          mmap: this.memory.map([{ offset: 0x1000, size: 0x2000 }]),
          read: (offset, into) => into.set(bytes.subarray(offset, offset + into.length)),
          write: (offset, data) => bytes.set(data, offset),
        },
      ],
      on: {
        reset: () => {
          clearTimeout(this.timeout);
          this.registers.fill(0n);
        },
        gone: () => {
          clearTimeout(this.timeout);
          this.memory.close();
        },
      },
    });
  }

  arm() {
    clearTimeout(this.timeout);
    const ms = 1000 * (Number(this.registers[0]) - seconds());
    this.timeout = setTimeout(() => this.expire(), Math.min(Math.max(ms, 0), MAX_DELAY));
  }

  async expire() {
    this.pci.irq.assert();
    this.pci.irq.deassert();
    const { messages } = this.client;
    const address = Number(this.registers[1]);
    const written = new Uint8Array(PIECE * PIECES).map((_, i) => 0x41 + Math.floor(i / PIECE));
    const read = new Uint8Array(written.length);
    try {
      // The guest may have no memory there.
      await this.pci.dma.write(address + written.length, written).catch(() => {});
      for (let at = 0; at < written.length; at += PIECE) {
        await messages.write(address + at, written.subarray(at, at + PIECE));
      }
      for (let at = 0; at < read.length; at += 2 * PIECE) {
        await messages.read(address + at, read.subarray(at, at + 2 * PIECE));
      }
      console.log(Buffer.compare(read, written) === 0 ? 'memory is right' : 'memory is WRONG');
    } catch (error) {
      console.log(`memory: ${error}`);
    }
  }
}

const seconds = () => Math.floor(Date.now() / 1000);

runBackend('timer', { accept: (client) => new Timer(client).pci });
