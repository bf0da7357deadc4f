/** An NVMe controller as VMMs find it: what it says of itself over vfio-user, and what it refuses. Also of other targets (`any-target.ts`). */
import t, { type Test } from 'tap';
import { ClientMemory } from '../../src/client/memory.ts';
import { VfioUserError } from '../../src/client/vfio.ts';
import { Register } from '../../src/spec/registers.ts';
import { IrqInfoFlag, PciIrq, PciRegion, RegionInfoFlag } from '../../src/spec/vfio-user.ts';
import { startTarget } from '../helpers/any-target.ts';
import { MIB } from '../helpers/target.ts';

const IOVA = 0x4000_0000;
const { offset } = Register;

async function start(t: Test) {
  const target = await startTarget(t);
  const served = await target.serve(await target.malloc(MIB));
  const client = await target.connect(served);
  return { target, served, client, vfio: client.vfio };
}

t.test('regions and interrupts', async (t) => {
  const { vfio } = await start(t);
  const { numRegions, numIrqs } = await vfio.getInfo();
  t.ok(numRegions >= 9 && numIrqs >= 5, 'all that a PCI device can have');
  const bar0 = await vfio.regionInfo(PciRegion.BAR0);
  t.ok(bar0.size >= 0x2000, 'registers, and doorbells behind them');
  for (const region of [bar0, await vfio.regionInfo(PciRegion.CONFIG)]) {
    t.equal(
      region.flags & (RegionInfoFlag.READ | RegionInfoFlag.WRITE),
      RegionInfoFlag.READ | RegionInfoFlag.WRITE,
    );
  }
  const msix = await vfio.irqInfo(PciIrq.MSIX);
  t.ok(msix.count >= 1 && (msix.flags & IrqInfoFlag.EVENTFD) !== 0, `${msix.count} vectors`);
});

t.test('PCI configuration space', async (t) => {
  const { vfio } = await start(t);
  const config = Buffer.from(await vfio.regionRead(PciRegion.CONFIG, 0, 256));
  t.equal(config.readUIntLE(9, 3), 0x01_08_02, 'an NVM Express controller');
  const capabilities = new Set<number>();
  for (let at = config[0x34]; at !== 0 && capabilities.size < 48; at = config[at + 1]) {
    capabilities.add(config[at]);
  }
  t.ok(capabilities.has(0x11) && capabilities.has(0x10), 'MSI-X and PCI Express');
});

t.test('memory is mapped once', async (t) => {
  const { vfio } = await start(t);
  const memory = new ClientMemory(MIB, IOVA);
  t.teardown(() => memory.close());
  const region = { iova: IOVA, size: MIB, fd: memory.fd };
  await vfio.dmaMap(region);
  await t.rejects(vfio.dmaMap({ ...region, iova: IOVA + MIB / 2 }), VfioUserError, 'overlapping');
  t.equal(await vfio.dmaUnmap(IOVA, MIB), MIB);
  await vfio.dmaMap(region);
});

t.test('what is refused leaves the device as it was', async (t) => {
  const { client, vfio } = await start(t);
  const { size } = await vfio.regionInfo(PciRegion.BAR0);
  await t.rejects(vfio.regionRead(PciRegion.BAR0, size, 4), VfioUserError, 'behind the end');
  await t.rejects(vfio.regionRead(40, 0, 4), VfioUserError, 'no such region');
  await t.rejects(vfio.request(99, new Uint8Array(0)), VfioUserError, 'no such command');
  t.ok((await client.identifyController()).vid > 0, 'it works');
});

t.test('a reset disables the controller; the next client finds one', async (t) => {
  const { target, served, client, vfio } = await start(t);
  t.not((await client.readRegister(offset.cc)) & 1, 0);
  await vfio.reset();
  t.equal((await client.readRegister(offset.cc)) & 1, 0);
  t.equal((await client.readRegister(offset.csts)) & 1, 0);
  client.close();
  const next = await target.connect(served);
  t.ok((await next.identifyController()).vid > 0);
});
