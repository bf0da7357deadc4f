/** Configuration space: what software finds there, what it can change, what it cannot. PCI Local Bus 3.0 §6; PCIe Base 3.0 §7. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { msi } from '../../src/pci/capabilities.ts';
import { type Bar, ConfigSpace } from '../../src/pci/config-space.ts';
import { capabilitiesOf } from '../../src/pci/function.ts';
import { NVME_PCI_IDENTITY } from '../../src/spec/nvme-pci.ts';

/** Power management control and status. */
const PMCSR = 0x44;
const BARS: Bar[] = [
  { index: 0, size: 0x4000, kind: 'memory64' },
  { index: 4, size: 0x2000 },
];

const make = () =>
  new ConfigSpace({
    identity: NVME_PCI_IDENTITY,
    bars: BARS,
    capabilities: capabilitiesOf({
      msix: { vectors: 65, bar: 4, tableOffset: 0, pbaOffset: 0x1000 },
    }),
    pin: true,
  });

function read(space: ConfigSpace, offset: number, width: 1 | 2 | 4): number {
  const bytes = Buffer.alloc(width);
  space.read(offset, bytes);
  return bytes.readUIntLE(0, width);
}

function write(space: ConfigSpace, offset: number, width: 1 | 2 | 4, value: number) {
  const bytes = Buffer.alloc(width);
  bytes.writeUIntLE(value >>> 0, 0, width);
  return space.write(offset, bytes);
}

/** Offsets by capability id. */
function capabilities(space: ConfigSpace): Map<number, number> {
  const found = new Map<number, number>();
  for (let at = read(space, 0x34, 1); at !== 0; at = read(space, at + 1, 1)) {
    assert.ok(at >= 0x40 && at % 4 === 0 && !found.has(read(space, at, 1)));
    found.set(read(space, at, 1), at);
  }
  return found;
}

t.test('an NVMe controller', async (t) => {
  const space = make();
  t.equal(read(space, 0, 4), 0x0001_4e58);
  t.equal(read(space, 8, 4) >>> 8, 0x01_0802, 'mass storage, non-volatile memory, NVMe');
  t.equal(read(space, 6, 2) & 0x10, 0x10, 'it has capabilities');
  t.equal(read(space, 0x0e, 1), 0, 'one function, type 0');
  t.equal(read(space, 0x3d, 1), 1, 'INTA');
  t.strictSame(
    [...capabilities(space).keys()].sort((a, b) => a - b),
    [0x01, 0x10, 0x11],
  );
  t.equal(read(space, 0x100, 4), 0, 'no extended capabilities');
});

t.test('BARs tell their size', async (t) => {
  const space = make();
  t.equal(read(space, 0x10, 4), 4, '64 bit, not prefetchable');
  for (const at of [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30]) {
    write(space, at, 4, 0xffff_ffff);
  }
  const sized = [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30].map((at) => read(space, at, 4));
  t.strictSame(sized, [0xffff_c004, 0xffff_ffff, 0, 0, 0xffff_e000, 0, 0]);
  write(space, 0x10, 4, 0xfebf_1234);
  t.equal(read(space, 0x10, 4), 0xfebf_0004, 'aligned to its size');
  write(space, 0x11, 1, 0xff);
  t.equal(read(space, 0x10, 4), 0xfebf_c004, 'byte by byte');
});

t.test('ports, and memory that goes beyond 4 GiB', async (t) => {
  const bars: Bar[] = [
    { index: 0, size: 2 ** 33, kind: 'memory64', prefetchable: true },
    { index: 2, size: 256, kind: 'io' },
    { index: 3, size: 16 },
  ];
  const identity = { vendorId: 0x1234, deviceId: 0x11e8, revision: 0x10 };
  const space = new ConfigSpace({ identity, bars, capabilities: [], pin: false });
  for (const at of [0x10, 0x14, 0x18, 0x1c, 0x20]) {
    write(space, at, 4, 0xffff_ffff);
  }
  const sized = [0x10, 0x14, 0x18, 0x1c, 0x20].map((at) => read(space, at, 4));
  t.strictSame(sized, [0x0000_000c, 0xffff_fffe, 0xffff_ff01, 0xffff_fff0, 0]);
  t.equal(read(space, 6, 2), 0, 'no capabilities');
  t.equal(read(space, 0x3d, 1), 0, 'no pin');
  write(space, 4, 2, 0xffff);
  t.equal(read(space, 4, 2), 0x0547, 'ports can be switched on where there are some');
});

t.test('MSI, and capabilities of the device', async (t) => {
  const own = { bytes: Uint8Array.of(9, 0, 4, 7), writable: Uint8Array.of(0xff, 0xff, 0, 0x0f) };
  const identity = { vendorId: 0x1234, deviceId: 0x11e8 };
  const space = new ConfigSpace({ identity, bars: [], capabilities: [msi(4), own], pin: false });
  const found = capabilities(space);
  t.strictSame([...found.keys()], [5, 9]);
  const at = found.get(5)!;
  t.equal(read(space, at + 2, 2), 0x84, '64 bits, four vectors');
  write(space, at + 2, 2, 0xffff);
  t.equal(read(space, at + 2, 2), 0xf5);
  write(space, found.get(9)!, 4, 0xffff_ffff);
  t.equal(read(space, found.get(9)!, 4), 0x0f04_0009, 'neither id nor chain can be written');
});

t.test('what is no function', async (t) => {
  const identity = { vendorId: 1, deviceId: 1 };
  const space = (bars: Bar[], bytes = 4, offset = 0x40) =>
    new ConfigSpace({
      identity,
      bars,
      capabilities: [{ bytes: new Uint8Array(bytes), offset }],
      pin: false,
    });
  t.doesNotThrow(() => space([{ index: 4, size: 16, kind: 'memory64' }]));
  for (const bar of [
    { index: 5, size: 16, kind: 'memory64' },
    { index: 6, size: 16 },
    { index: -1, size: 16 },
    { index: 0, size: 24 },
    { index: 0, size: 8 },
    { index: 0, size: 512, kind: 'io' },
    { index: 0, size: 2 ** 32 },
  ] as const) {
    t.throws(() => space([bar]), RangeError, JSON.stringify(bar));
  }
  const two = [
    { index: 0, size: 16, kind: 'memory64' },
    { index: 1, size: 16 },
  ] as const;
  t.throws(() => space([...two]), RangeError);
  t.throws(() => space([], 4, 0x42), RangeError);
  t.throws(() => space([], 4, 0x3c), RangeError);
  t.throws(() => space([], 8, 0xfc), RangeError);
  t.throws(() => space([], 1), RangeError);
});

t.test('power states that are not offered are not taken', async (t) => {
  const space = make();
  t.equal(read(space, 0x42, 2) & 0x0600, 0, 'neither D1 nor D2');
  for (const state of [0, 3]) {
    write(space, PMCSR, 2, state);
    t.equal(read(space, PMCSR, 2) & 3, state);
    for (const other of [1, 2]) {
      write(space, PMCSR, 2, other);
      t.equal(read(space, PMCSR, 2) & 3, state, `D${other} from D${state}`);
      write(space, PMCSR - 2, 4, other << 16);
      t.equal(read(space, PMCSR, 2) & 3, state);
    }
  }
});

t.test('MSI-X', async (t) => {
  const space = make();
  const at = capabilities(space).get(0x11)!;
  t.equal(read(space, at + 2, 2), 64, '65 vectors');
  t.equal(read(space, at + 4, 4), 4, 'the table is in BAR4');
  t.equal(read(space, at + 8, 4), 0x1004, 'so are the pending bits');
  write(space, at + 2, 2, 0xffff);
  t.equal(read(space, at + 2, 2), 0xc040, 'enable and function mask alone can be set');
  write(space, at + 4, 4, 0xffff_ffff);
  t.equal(read(space, at + 4, 4), 4);
});

t.test('function level reset', async (t) => {
  const space = make();
  const at = capabilities(space).get(0x10)!;
  t.equal(read(space, at + 2, 2) & 0xff, 2, 'version 2, an endpoint');
  t.equal((read(space, at + 4, 4) >>> 28) & 1, 1, 'offered');
  const control = at + 8;
  t.equal(write(space, control, 2, 0x7fff), undefined);
  t.equal(read(space, control, 2), 0x7fff);
  t.equal(write(space, control, 2, 0x8000), 'reset');
  t.equal(read(space, control, 2), 0, 'the bit reads as 0');
  t.equal(write(space, control + 1, 1, 0x80), 'reset', 'the upper byte alone');
  t.equal(write(space, control, 4, 0x8000), 'reset', 'with the status behind it');
  t.equal(write(space, control - 3, 4, 0x8000_0000), undefined, 'bit 7 of the control');
  t.equal(write(space, control, 1, 0x80), undefined, 'bit 7');
  t.equal(space.write(0, new Uint8Array(4096).fill(0xff)), 'reset', 'amid all the rest');
  t.equal(space.write(control + 2, new Uint8Array(16).fill(0xff)), undefined);
});

t.test('a reset undoes what was written', async (t) => {
  const space = make();
  const image = Buffer.alloc(4096);
  space.read(0, image);
  space.write(0, new Uint8Array(4096).fill(0xff));
  const changed = Buffer.alloc(4096);
  space.read(0, changed);
  t.notOk(changed.equals(image));
  t.equal(read(space, 4, 2), 0x0546, 'command: memory, bus master, parity, SERR, INTx disable');
  t.equal(read(space, 0x3c, 2), 0x01ff, 'interrupt line, and the pin as it was');
  space.reset();
  space.read(0, changed);
  t.ok(changed.equals(image));
});

t.test('any sequence of writes leaves what can only be read', async () => {
  const fixed = make();
  const initial = Buffer.alloc(4096);
  fixed.read(0, initial);
  // Bits that stay what they are when all is set to 1 and to 0.
  const ones = Buffer.alloc(4096);
  fixed.write(0, Buffer.alloc(4096, 0xff));
  fixed.read(0, ones);
  const zeros = Buffer.alloc(4096);
  fixed.write(0, Buffer.alloc(4096, 0));
  fixed.read(0, zeros);
  const chunk = fc.record({
    offset: fc.oneof(fc.nat(0xc0), fc.nat(4095)),
    data: fc.uint8Array({ minLength: 1, maxLength: 16 }),
  });
  const property = fc.property(fc.array(chunk, { maxLength: 40 }), (chunks) => {
    const space = make();
    const model = Buffer.from(initial);
    for (const { offset, data } of chunks) {
      const part = data.subarray(0, 4096 - offset);
      const power = model[PMCSR] & 3;
      space.write(offset, part);
      for (const [i, value] of part.entries()) {
        const mask = ones[offset + i] & ~zeros[offset + i];
        model[offset + i] = (model[offset + i] & ~mask) | (value & mask);
      }
      if ((model[PMCSR] & 3) % 3 !== 0) {
        model[PMCSR] = (model[PMCSR] & ~3) | power;
      }
    }
    const now = Buffer.alloc(4096);
    space.read(0, now);
    assert.ok(now.equals(model));
  });
  fc.assert(property, { numRuns: 100 });
});
