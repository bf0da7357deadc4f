/** What the files want and what was changed through JSON-RPC, brought together: see also integration/config-changes.test.ts. */
import t from 'tap';
import { compileSources } from '../../src/app/config/load.ts';
import { mergePlans } from '../../src/app/config/merge.ts';
import { methodTable } from '../../src/app/config/methods.ts';
import { parseSource } from '../../src/app/config/source.ts';
import { EMPTY_PLAN } from '../../src/target/model/plan.ts';

const methods = methodTable();
const planOf = (text: string) =>
  compileSources([parseSource(text, '/etc/doorbell/vms.yaml')], methods).plan;

const VM = 'nqn.2026-11.io.doorbell:a';
const before = planOf('vms: { a: { disks: [{ ram: 1G }] }, b: { disks: [{ ram: 1G }] } }');
const after = planOf(
  'vms: { a: { disks: [{ ram: 1G }], model: New }, b: { disks: [{ ram: 1G }] } }',
);
/** Somebody deleted VM a, and left its disk. */
const deleted = {
  ...before,
  subsystems: new Map([...before.subsystems].filter(([nqn]) => nqn !== VM)),
};

t.test('a deleted VM stays deleted while the files say the same of it', async (t) => {
  t.strictSame(mergePlans(before, before, deleted), deleted);
});

t.test('it comes back whole when the files change it', async (t) => {
  const merged = mergePlans(before, after, deleted);
  t.strictSame(merged.subsystems.get(VM), after.subsystems.get(VM));
  t.equal(merged.subsystems.get(VM)?.namespaces.size, 1);
});

t.test('without the disks that are deleted, too', async (t) => {
  const none = { ...deleted, bdevs: new Map() };
  t.equal(mergePlans(before, after, none).subsystems.get(VM)?.namespaces.size, 0);
});

t.test('what the files drop goes, if it is as they made it or not', async (t) => {
  t.strictSame(mergePlans(before, EMPTY_PLAN, before).subsystems, new Map());
  t.strictSame(mergePlans(before, EMPTY_PLAN, after).subsystems, new Map());
});
