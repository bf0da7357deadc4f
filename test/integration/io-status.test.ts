/** I/O commands with every wrong parameter: which status each gets. NVM Command Set 1.0 §3.2; NVMe Base 2.0 §3.3.3.2.1. */
import t, { type Test } from 'tap';
import type { CommandFields } from '../../src/client/nvme.ts';
import { FORWARDED_COMMANDS } from '../../src/nvme/forwarded.ts';
import { IO_COMMANDS } from '../../src/nvme/io-commands.ts';
import { NvmOpcode, RangeDword12 } from '../../src/spec/nvm.ts';
import { code } from '../helpers/admin.ts';
import { onlyOurs, startTarget } from '../helpers/any-target.ts';
import { MIB } from '../helpers/target.ts';

const { READ, WRITE, FLUSH } = NvmOpcode;
const NSID_ALL = 0xffff_ffff;

async function start(t: Test, kind: 'malloc' | 'file', options: { maxIoSize?: number } = {}) {
  const target = await startTarget(t, { transport: options });
  const make = (blockSize: number) =>
    kind === 'malloc'
      ? target.malloc(2 * MIB, blockSize)
      : target.file(target.image(2 * MIB), { blockSize });
  const bdevs = [await make(512), await make(4096)];
  const client = await target.connect(await target.serve(...bdevs));
  const pair = await client.createQueuePair(1, 64);
  // A megabyte, and the list of its pages.
  const base = client.memory.iova + client.memory.allocate(MIB);
  const list = client.memory.allocate(4096);
  const entries = new BigUint64Array(client.memory.buffer, list, 512);
  entries.forEach((_, i) => {
    entries[i] = BigInt(base + 4096 * ((i + 1) % 256));
  });
  const whole = { prp1: base, prp2: client.memory.iova + list };
  const status = async (fields: CommandFields) => {
    const completion = await pair.execute({ nsid: 1, ...whole, ...fields });
    t.equal(completion.dw0, 0);
    return code(completion);
  };
  return { client, pair, status, whole };
}

for (const kind of ['malloc', 'file'] as const) {
  t.test(`${kind}: ranges of blocks`, async (t) => {
    const { status } = await start(t, kind);
    for (const opcode of [READ, WRITE]) {
      for (const [nsid, blocks] of [
        [1, 4096],
        [2, 512],
      ]) {
        const at = (cdw10: number, count: number, cdw11 = 0) =>
          status({ opcode, nsid, cdw10, cdw11, cdw12: count - 1 });
        t.equal(await at(0, 1), '0/00');
        t.equal(await at(blocks - 1, 1), '0/00', 'the last block');
        t.equal(await at(blocks - 8, 8), '0/00');
        t.equal(await at(blocks, 1), '0/80', 'one too far');
        t.equal(await at(blocks - 7, 8), '0/80', 'one too many');
        t.equal(await at(0xffff_ffff, 1), '0/80');
        t.equal(await at(0, 1, 1), '0/80', 'block 2^32');
        t.equal(await at(0, 1, 0x20_0000), '0/80', 'block 2^53');
        t.equal(await at(0xffff_ffff, 65536, 0xffff_ffff), '0/80', 'over the end of all numbers');
        t.equal(await at(0xffff_fff8, 16, 0xffff_ffff), '0/80', 'a sum that wraps to a good one');
      }
    }
  });

  t.test(`${kind}: sizes`, async (t) => {
    const { status } = await start(t, kind);
    const of = (nsid: number, count: number) => status({ opcode: READ, nsid, cdw12: count - 1 });
    t.equal(await of(1, 2048), '0/00', '1 MiB');
    t.equal(await of(1, 2049), '0/02', 'more than MDTS');
    t.equal(await of(2, 256), '0/00', '1 MiB');
    t.equal(await of(2, 257), '0/02');
  });

  t.test(`${kind}: namespaces, opcodes, flags`, async (t) => {
    const { status } = await start(t, kind);
    for (const nsid of [0, 3, 32, 33, 0x8000_0001, 0x1_0001, NSID_ALL - 1, NSID_ALL]) {
      for (const opcode of [READ, WRITE, FLUSH]) {
        // Flush is of all namespaces at once, too.
        const expected = opcode === FLUSH && nsid === NSID_ALL ? '0/00' : '0/0b';
        t.equal(await status({ opcode, nsid }), expected, `NSID ${nsid}`);
      }
    }
    const known = [...IO_COMMANDS, ...FORWARDED_COMMANDS].map(({ opcode }) => opcode);
    for (let opcode = 0; opcode < 256; opcode++) {
      if (!known.includes(opcode)) {
        t.equal(await status({ opcode }), '0/01', `opcode ${opcode}`);
      }
    }
    for (const flags of [0x01, 0x02, 0x03, 0xc0]) {
      t.equal(await status({ opcode: READ, flags }), '0/02', 'fused, or a PSDT that there is not');
    }
    for (const flags of [0x04, 0x20, 0x3c]) {
      t.equal(await status({ opcode: READ, flags }), '0/00', 'reserved bits mean nothing');
    }
  });

  t.test(`${kind}: fields that mean nothing here`, async (t) => {
    const { status } = await start(t, kind);
    const noise = { cdw2: 0xffff_ffff, cdw3: 0xffff_ffff, mptr: 2 ** 52, cdw13: 0xff, cdw14: 5 };
    t.equal(await status({ opcode: READ, ...noise, cdw15: 0xffff_ffff }), '0/00');
    t.equal(await status({ opcode: WRITE, ...noise, cdw12: RangeDword12.mask.fua }), '0/00');
    // LR, and the protection information of a format without any.
    t.equal(await status({ opcode: READ, cdw12: 0x8000_0007 }), '0/00');
    t.equal(await status({ opcode: WRITE, cdw12: 0x3c00_0007 }), '0/00');
    const flush = { opcode: FLUSH, cdw10: 0xffff_ffff, cdw11: 0xffff_ffff, cdw12: 0xffff_ffff };
    t.equal(await status({ ...flush, prp1: 3, prp2: 3 }), '0/00', 'a flush has no buffer');
  });

  t.test(`${kind}: a transport with smaller transfers`, { skip: onlyOurs }, async (t) => {
    const { client, status } = await start(t, kind, { maxIoSize: 16384 });
    t.equal((await client.identifyController()).mdts, 2);
    t.equal(await status({ opcode: WRITE, cdw12: 31 }), '0/00');
    t.equal(await status({ opcode: WRITE, cdw12: 32 }), '0/02');
    t.equal(await status({ opcode: WRITE, nsid: 2, cdw12: 3 }), '0/00');
    t.equal(await status({ opcode: WRITE, nsid: 2, cdw12: 4 }), '0/02');
  });
}
