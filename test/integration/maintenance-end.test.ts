/** What a subsystem has done to its namespaces in the background ends when it is deleted: its disks are another's by then. */
import { readFileSync } from 'node:fs';
import t from 'tap';
import type { NvmeClient } from '../../src/client/nvme.ts';
import { FormatNvm, Sanitize, SanitizeAction } from '../../src/spec/admin.ts';
import { Write } from '../../src/spec/nvm.ts';
import { code } from '../helpers/admin.ts';
import { FuseDisk, noFuse } from '../helpers/fuse.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const BYTES = 8 * MIB;
const { OVERWRITE } = SanitizeAction;
const OVERWRITTEN = Sanitize.fields({ sanact: OVERWRITE, owpass: 1, ovrpat: 0x1111_1111 });

for (const [name, begin] of [
  ['a sanitize operation', (client: NvmeClient) => client.admin.execute(OVERWRITTEN)],
  [
    'a format',
    async (client: NvmeClient) => {
      client.admin.execute(FormatNvm.fields({ nsid: 1 })).catch(() => {});
      await client.identifyController();
    },
  ],
] as const) {
  t.test(`${name} erases nothing that another subsystem has then`, async (t) => {
    const target = await TestTarget.start(t);
    const image = target.image(name === 'a format' ? 64 * MIB : BYTES);
    const bdev = await target.file(image);
    const bytes = readFileSync(image).length;
    const served = await target.serve(bdev);
    const client = await target.connect(served);
    await target.target.limit(bdev, { rwBytes: bytes });
    await begin(client);
    await target.target.deleteSubsystem(served.nqn);

    const other = await target.connect(await target.serve(bdev));
    const pair = await other.createQueuePair(1, 16);
    const offset = other.memory.allocate(4096);
    other.memory.bytes(offset, 4096).fill(0x99);
    const prp1 = other.memory.iova + offset;
    const slba = bytes / 512 - 8;
    t.equal(code(await pair.execute(Write.fields({ nsid: 1, slba, nlbZ: 7, prp1 }))), '0/00');
    // So long that what went on would have come here.
    await new Promise((resolve) => setTimeout(resolve, 1500));
    const end = readFileSync(image).subarray(bytes - 4096);
    t.ok(
      end.every((byte) => byte === 0x99),
      'as the other subsystem wrote it',
    );
  });
}

t.test('a disk that hangs does not keep its subsystem', { skip: noFuse }, async (t) => {
  const disk = await FuseDisk.mount(t, MIB);
  const target = await TestTarget.start(t);
  t.teardown(() => disk.behave({}));
  const served = await target.serve(await target.file(disk.paths[0]));
  const client = await target.connect(served);
  await disk.behave({ hold: true });
  t.equal(code(await client.admin.execute(OVERWRITTEN)), '0/00');
  await disk.held(1);
  await target.target.deleteSubsystem(served.nqn);
  t.equal(target.target.findSubsystem(served.nqn), undefined);
  await disk.behave({});
});
