/** The rules of a configuration: what a target does, and what its model does without it. */
import { deepStrictEqual, strictEqual } from 'node:assert';
import fc from 'fast-check';
import t from 'tap';
import { completePlan } from '../../src/app/config/complete.ts';
import { methodTable } from '../../src/app/config/methods.ts';
import { MAX_BDEVS } from '../../src/limits.ts';
import { apply, isConfigCall } from '../../src/target/model/apply.ts';
import { Model } from '../../src/target/model/model.ts';
import { type ConfigCall, EMPTY_PLAN, planCalls } from '../../src/target/model/plan.ts';
import { change, prepareFolder } from '../helpers/config.ts';
import { shortFolder, startRpcTarget } from '../helpers/rpc.ts';

const methods = methodTable();

/** What a model says to a call. */
function refusal(model: Model, call: ConfigCall): string | undefined {
  try {
    apply(model, call);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

t.test('a target and a model without effects agree on every call', async (t) => {
  let made = 0;
  let refused = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(change, { minLength: 20, maxLength: 60 }), async (changes) => {
      const teardowns: (() => unknown)[] = [];
      const test = { teardown: (fn: () => unknown) => teardowns.unshift(fn) };
      try {
        const folder = shortFolder(test);
        prepareFolder(folder);
        const { target, dispatcher } = await startRpcTarget(test);
        const model = new Model();
        for (const each of changes) {
          const { method, params } = JSON.parse(JSON.stringify(each(folder)));
          if (!isConfigCall(method) || methods.violation(method, params) !== undefined) {
            continue;
          }
          const live = await dispatcher.dispatch(method, params).then(
            (result) => {
              // A plan leaves NSIDs open until it is whole; a target chooses them at once.
              if (method === 'nvmf_subsystem_add_ns') {
                params.namespace.nsid = result;
              }
            },
            (error: Error) => error.message.replace(/^Invalid parameters: /, ''),
          );
          // That there is something to set is the method's concern.
          const said = live?.includes('no rate limits specified')
            ? live
            : refusal(model, { method, params });
          strictEqual(said, live, `${method} ${JSON.stringify(params)}`);
          made += live === undefined ? 1 : 0;
          refused += live === undefined ? 0 : 1;
        }
        // Identifiers that were left open are as the target chose them.
        const { plan } = target.model;
        const filled = completePlan(model.plan, plan);
        deepStrictEqual(filled.subsystems, plan.subsystems);
        deepStrictEqual(filled.bdevs, plan.bdevs);
        deepStrictEqual(filled.transport, plan.transport);
        const again = new Model();
        for (const call of planCalls(plan)) {
          apply(again, call);
        }
        deepStrictEqual(again.plan, plan, 'it is what it prints');
      } finally {
        for (const teardown of teardowns) {
          await teardown();
        }
      }
    }),
    { numRuns: 25 },
  );
  t.ok(made > 100 && refused > 100, `${made} made, ${refused} refused`);
});

const nullBdev = (name: string, rest: object = {}): ConfigCall => ({
  method: 'bdev_null_create',
  params: { name, num_blocks: 8, block_size: 512, ...rest },
});

t.test('a model that refused something is as it was', async (t) => {
  const model = new Model();
  const uuid = '11111111-2222-3333-4444-555555555555';
  const nqn = 'nqn.2026-11.io.example:s';
  const given: ConfigCall[] = [
    nullBdev('a', { uuid }),
    nullBdev('b'),
    { method: 'bdev_error_create', params: { base_name: 'b' } },
    { method: 'bdev_set_qos_limit', params: { name: 'a', rw_ios_per_sec: 1 } },
    { method: 'nvmf_create_transport', params: { trtype: 'VFIOUSER' } },
    { method: 'nvmf_create_subsystem', params: { nqn, max_namespaces: 1 } },
    { method: 'nvmf_subsystem_add_ns', params: { nqn, namespace: { bdev_name: uuid } } },
  ];
  for (const call of given) {
    t.equal(refusal(model, call), undefined);
  }
  const before = model.plan;
  t.match(before.bdevs.get('a')?.limits, { rw_ios_per_sec: 1000 });
  t.strictSame([...(before.subsystems.get(nqn)?.namespaces.keys() ?? [])], ['a']);
  const listen_address = { trtype: 'VFIOUSER', traddr: `/${'x'.repeat(110)}` };
  const bad: readonly (readonly [ConfigCall, RegExp])[] = [
    [nullBdev(''), /'name'/],
    [nullBdev('a\n'), /'name'/],
    [nullBdev(uuid.toUpperCase()), /^File exists: there is a bdev .* already, named 'a'$/],
    [nullBdev('c', { uuid: uuid.toUpperCase() }), /named 'a'/],
    [{ method: 'bdev_error_create', params: { base_name: 'b' } }, /there is a bdev 'EE_b'/],
    [{ method: 'bdev_error_create', params: { base_name: 'a' } }, /claimed by nqn/],
    [{ method: 'bdev_set_qos_limit', params: { name: 'b', rw_ios_per_sec: 1 } }, /on top of it/],
    [{ method: 'nvmf_create_transport', params: { trtype: 'TCP' } }, /'trtype': .*'TCP'/],
    [{ method: 'nvmf_create_transport', params: { trtype: 'VFIOUSER' } }, /already exists/],
    [
      { method: 'nvmf_subsystem_add_ns', params: { nqn, namespace: { bdev_name: 'EE_b' } } },
      /has 1 namespaces already/,
    ],
    [
      { method: 'nvmf_subsystem_add_listener', params: { nqn, listen_address } },
      /'listen_address.traddr': File name too long/,
    ],
  ];
  for (const [call, pattern] of bad) {
    t.match(refusal(model, call), pattern);
  }
  t.strictSame(model.plan, before);
});

t.test('no more bdevs than there can be', async (t) => {
  const model = new Model();
  for (let i = 0; i < MAX_BDEVS; i++) {
    apply(model, nullBdev(`n${i}`));
  }
  t.match(refusal(model, nullBdev('more')), /there are \d+ bdevs/);
  t.strictSame(new Model().plan, EMPTY_PLAN);
});
