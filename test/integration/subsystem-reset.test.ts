/** NVM Subsystem Reset: NSSR, CAP.NSSRS, CSTS.NSSRO. NVMe Base 2.0 §3.1.3.6, §3.1.3.7, §3.7.1. */
import t from 'tap';
import type { NvmeClient } from '../../src/client/nvme.ts';
import { Cns } from '../../src/spec/admin.ts';
import { Fid } from '../../src/spec/features.ts';
import { Flush } from '../../src/spec/nvm.ts';
import { CapHigh, Csts, NSSR_RESET, Register } from '../../src/spec/registers.ts';
import { AdminCaller } from '../helpers/admin.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const { offset } = Register;
const NSSRO = Csts.mask.nssro;

async function notReady(client: NvmeClient): Promise<void> {
  while (((await client.readRegister(offset.csts)) & Csts.mask.rdy) !== 0) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

t.test('resets every controller of the subsystem, and no others', async (t) => {
  const target = await TestTarget.start(t);
  const served = await target.serve(await target.malloc(MIB));
  const elsewhere = await target.connect(await target.serve(await target.malloc(MIB)));
  const clients = [
    await target.connect(served),
    await target.connect(await target.listen(served.nqn)),
  ];
  for (const client of clients) {
    const cap = await client.readRegister(offset.cap + 4);
    t.equal(CapHigh.decode(cap).nssrs, true);
    t.equal(await client.readRegister(offset.nssr), 0);
    await client.createQueuePair(1, 16);
    await new AdminCaller(client).setFeature(Fid.ARBITRATION, 3);
  }
  await clients[0].writeRegister(offset.nssr, 0x4e56_4d66);
  await clients[0].writeRegister(offset.nssr, 0);
  t.equal((await clients[0].readRegister(offset.csts)) & NSSRO, 0, 'any other value does nothing');
  await clients[0].writeRegister(offset.nssr, NSSR_RESET);
  for (const client of clients) {
    await notReady(client);
    t.equal(await client.readRegister(offset.csts), NSSRO);
    for (const register of [offset.cc, offset.aqa, offset.asq, offset.acq, offset.nssr]) {
      t.equal(await client.readRegister(register), 0, `register ${register}`);
    }
    await client.enable();
    t.equal(await client.readRegister(offset.csts), NSSRO | Csts.mask.rdy, 'until it is cleared');
    await client.writeRegister(offset.csts, Csts.mask.rdy | Csts.mask.cfs);
    t.equal(await client.readRegister(offset.csts), NSSRO | Csts.mask.rdy);
    await client.writeRegister(offset.csts, NSSRO);
    t.equal(await client.readRegister(offset.csts), Csts.mask.rdy);
    const admin = new AdminCaller(client);
    t.equal((await admin.getFeature(Fid.ARBITRATION)).dw0, 7, 'defaults');
    const pair = await client.createQueuePair(1, 16);
    t.equal((await pair.execute(Flush.fields({ nsid: 1 }))).status, 0);
  }
  t.equal(await elsewhere.readRegister(offset.csts), Csts.mask.rdy);
});

t.test('of a controller that is not enabled, or failed, or over and over', async (t) => {
  const target = await TestTarget.start(t);
  const client = await target.connect(await target.serve(await target.malloc(MIB)));
  await client.disable();
  await client.writeRegister(offset.nssr, NSSR_RESET);
  while ((await client.readRegister(offset.csts)) !== NSSRO) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  for (let i = 0; i < 20; i++) {
    await client.enable();
    await client.createQueuePair(1, 16);
    await client.writeRegister(offset.nssr, NSSR_RESET);
    await client.writeRegister(offset.nssr, NSSR_RESET);
    await notReady(client);
  }
  await client.enable();
  const admin = new AdminCaller(client);
  t.equal((await admin.identify(Cns.CONTROLLER)).code, '0/00');
});

t.test('where an operator does not want it', async (t) => {
  const target = await TestTarget.start(t);
  const nqn = 'nqn.2026-11.io.doorbell:off';
  await target.target.createSubsystem({ nqn, allowAnyHost: true, enableNssr: false });
  const client = await target.connect(await target.listen(nqn));
  t.equal(CapHigh.decode(await client.readRegister(offset.cap + 4)).nssrs, false);
  await client.writeRegister(offset.nssr, NSSR_RESET);
  t.equal(await client.readRegister(offset.csts), Csts.mask.rdy);
  const { params } = target.target.subsystem(nqn).model;
  t.match(params, { enable_nssr: false }, 'kept in a configuration');
});
