/** Which calls of a reload wait for each other. */
import t from 'tap';
import { planChanges } from '../../src/app/config/changes.ts';
import { completePlan } from '../../src/app/config/complete.ts';
import { groupCalls } from '../../src/app/config/groups.ts';
import { compileSources } from '../../src/app/config/load.ts';
import { methodTable } from '../../src/app/config/methods.ts';
import { parseSource } from '../../src/app/config/source.ts';
import { describeCall, EMPTY_PLAN, type Plan } from '../../src/target/model/plan.ts';

const methods = methodTable();

function plan(text: string, current: Plan = EMPTY_PLAN): Plan {
  return completePlan(compileSources([parseSource(text, 'file')], methods).plan, current);
}

/** The VMs and disks that the calls of each group are about. */
function groups(before: string, after: string) {
  const current = plan(before);
  const wanted = plan(after, current);
  const { first, groups } = groupCalls(planChanges(current, wanted), current, wanted);
  return {
    first: first.map(({ method }) => method),
    groups: groups.map((calls) => calls.map(describeCall)),
  };
}

const vms = (...all: string[]) => `vms:\n${all.map((vm) => `  ${vm}\n`).join('')}`;
const vm = (name: string, ...disks: string[]) =>
  `${name}: { socket: /run/${name}, disks: [${disks.map((disk) => `{ ${disk} }`).join(', ')}] }`;

t.test('VMs that share nothing do not wait for each other', async (t) => {
  const found = groups(
    vms(vm('a', 'null: 1M'), vm('b', 'null: 1M')),
    vms(vm('a', 'null: 1M', 'null: 2M'), vm('b', 'null: 3M'), vm('c', 'null: 1M')),
  );
  t.strictSame(found.first, []);
  t.equal(found.groups.length, 3);
  for (const calls of found.groups) {
    const names = new Set(
      calls.map((call) => /:([abc])\b|\b([abc])\//.exec(call)?.slice(1).join('')),
    );
    t.equal(names.size, 1, calls.join(', '));
  }
  const start = groups('vms: {}', vms(vm('a', 'null: 1M'), vm('b', 'null: 1M')));
  t.equal(start.groups.length, 2);
});

t.test('what goes from one VM to another keeps its order', async (t) => {
  const disk = 'file: /x/d.img, block-size: 512, name: d';
  const found = groups(
    vms(vm('a', disk, 'null: 1M'), vm('b', 'null: 1M')),
    vms(vm('a', 'null: 1M'), vm('b', 'null: 1M', disk)),
  );
  t.equal(found.groups.length, 1);
  t.match(found.groups[0].join('; '), /remove_ns.*add_ns/);
  const other = groups(
    vms(vm('a', disk)),
    vms(vm('b', 'file: /x/d.img, block-size: 512, name: other')),
  );
  t.equal(other.groups.length, 1, 'a file under another name, too');
});
