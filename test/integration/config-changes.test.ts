/** From one configuration to another: the calls that a reload makes, against targets that have both. */
import { deepStrictEqual } from 'node:assert';
import fc from 'fast-check';
import t from 'tap';
import { planChanges } from '../../src/app/config/changes.ts';
import { completePlan } from '../../src/app/config/complete.ts';
import { mergePlans } from '../../src/app/config/merge.ts';
import { EMPTY_PLAN, type Plan } from '../../src/target/model/plan.ts';
import { apply, change, prepareFolder } from '../helpers/config.ts';
import { shortFolder, startRpcTarget, type TestTarget } from '../helpers/rpc.ts';

/** Two targets after changes of their own, with the same files and folders. Gone when `use` has ended. */
async function withTwo(
  changes: readonly (readonly Parameters<typeof apply>[2][0][])[],
  use: (...targets: TestTarget[]) => Promise<void>,
): Promise<void> {
  const teardowns: (() => unknown)[] = [];
  const test = { teardown: (fn: () => unknown) => teardowns.unshift(fn) };
  try {
    const folder = shortFolder(test);
    prepareFolder(folder);
    const targets = [];
    for (const list of changes) {
      const target = await startRpcTarget(test);
      await target.call('nvmf_create_transport', { trtype: 'VFIOUSER' });
      await apply(target.call, folder, list);
      targets.push(target);
    }
    await use(...targets);
  } finally {
    for (const teardown of teardowns) {
      await teardown();
    }
  }
}

const changes = fc.array(change, { minLength: 5, maxLength: 50 });

t.test('the changes from any configuration to any other make the other', async (t) => {
  let made = 0;
  await fc.assert(
    fc.asyncProperty(changes, changes, async (some, others) => {
      await withTwo([some, others], async (first, second) => {
        const wanted = second.target.model.plan;
        const calls = planChanges(first.target.model.plan, wanted);
        for (const { method, params } of calls) {
          await first.call(method, params);
        }
        made += calls.length;
        deepStrictEqual(first.target.model.plan, wanted);
        deepStrictEqual(planChanges(first.target.model.plan, wanted), []);
      });
    }),
    { numRuns: 60 },
  );
  t.ok(made > 100, `${made} changes`);
});

t.test('what is the same in both is not touched', async (t) => {
  await fc.assert(
    fc.asyncProperty(changes, changes, async (some, others) => {
      await withTwo([some, others], async (first, second) => {
        const before = first.target.model.plan;
        const after = second.target.model.plan;
        const calls = planChanges(before, after);
        const json = JSON.stringify(calls);
        for (const [nqn, subsystem] of before.subsystems) {
          try {
            deepStrictEqual(subsystem, after.subsystems.get(nqn));
          } catch {
            continue;
          }
          const bdevs = [...subsystem.namespaces.keys()];
          const touched = bdevs.some((name) => json.includes(JSON.stringify(name)));
          deepStrictEqual(touched || !json.includes(nqn), true, nqn);
        }
      });
    }),
    { numRuns: 30 },
  );
  t.pass();
});

t.test('merging', async (t) => {
  const both = fc.asyncProperty(changes, changes, async (some, others) => {
    await withTwo([some, others], async (first, second) => {
      const [a, b] = [first.target.model.plan, second.target.model.plan];
      const as = (plan: Plan) => ({ ...plan, transport: undefined });
      deepStrictEqual(as(mergePlans(a, b, a)), as(b), 'nobody else changed anything');
      deepStrictEqual(as(mergePlans(a, a, b)), as(b), 'the files did not change');
      deepStrictEqual(as(mergePlans(EMPTY_PLAN, b, EMPTY_PLAN)), as(b), 'the first time');
      deepStrictEqual(as(mergePlans(b, b, EMPTY_PLAN, true)), as(b), 'overwritten');
      deepStrictEqual(as(mergePlans(EMPTY_PLAN, EMPTY_PLAN, b)), as(b), 'all made by others');
      deepStrictEqual(completePlan(b, a), b, 'nothing is left open');
    });
  });
  await fc.assert(both, { numRuns: 30 });
  t.pass();
});
