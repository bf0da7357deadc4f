/** Kinds of bdevs: what is registered, and that a new one needs nothing but to be. */
import t from 'tap';
import type { Backend } from '../../src/bdev/backend.ts';
import type { BackendDescriptor } from '../../src/bdev/bdev.ts';
import type { BackendContext } from '../../src/bdev/context.ts';
import { type BdevIdentity, Disk } from '../../src/bdev/disk.ts';
import type { BdevKind } from '../../src/bdev/kind.ts';
import { deletingMethod, deletionOf, kindMadeBy, makingMethod } from '../../src/bdev/kind-rules.ts';
import { BDEV_KINDS, bdevKind, registerBdevKind } from '../../src/bdev/kinds.ts';
import { ALL_OPS } from '../../src/bdev/op.ts';
import { openBackend, registerBackend } from '../../src/bdev/open.ts';
import { isConfigCall } from '../../src/target/model/apply.ts';
import { SCHEMA_KIT } from '../../src/util/schema.ts';
import { TestTarget } from '../helpers/target.ts';

interface ToyDescriptor extends BackendDescriptor {
  readonly kind: 'toy';
  readonly pattern: number;
}

class ToyBdev extends Disk {
  readonly module = 'toy';
  readonly productName = 'Toy disk';
  readonly readonly = true;
  readonly hints = { granularity: 512, readsZeroes: false };
  readonly pattern: number;
  closed = false;

  constructor(identity: BdevIdentity, pattern: number) {
    super(identity, { blockSize: 512, numBlocks: 8 });
    this.pattern = pattern;
  }

  get backend(): ToyDescriptor {
    return { kind: 'toy', pattern: this.pattern };
  }

  get driverSpecific() {
    return { toy: { pattern: this.pattern } };
  }

  async sync(): Promise<void> {}

  async close(): Promise<void> {
    this.closed = true;
  }
}

class ToyBackend implements Backend {
  readonly async = false;
  readonly operations = ALL_OPS;
  readonly pattern: number;

  constructor(pattern: number) {
    this.pattern = pattern;
  }

  submit(): number {
    return 0;
  }

  complete(): number {
    return 0;
  }

  close(): void {}
}

const TOY: BdevKind = {
  name: 'toy',
  summary: 'Makes a toy.',
  parameters: ({ Type, Text, Uint }) =>
    Type.Object({ name: Text('its name'), pattern: Type.Optional(Uint('what it reads', 255)) }),
  kept: { pattern: 7, uuid: undefined },
  create: (identity, { pattern = 7 }) => new ToyBdev(identity, Number(pattern)),
  save: (bdev) => ({ pattern: (bdev as ToyBdev).pattern }),
};

t.test('a new kind is made, saved, opened and deleted', async (t) => {
  registerBdevKind(TOY);
  registerBackend('toy', (descriptor) => new ToyBackend((descriptor as ToyDescriptor).pattern));
  t.equal(kindMadeBy('bdev_toy_create'), TOY);
  t.ok(isConfigCall('bdev_toy_create'), 'configurations may have it');
  const { target } = await TestTarget.start(t);
  const bdev = await target.createBdev('toy', { name: 'a', pattern: 9 });
  const other = await target.createBdev('toy', { name: 'b' });
  const calls = [...target.model.plan.bdevs.values()].map(({ create, params }) => [create, params]);
  t.strictSame(calls, [
    ['bdev_toy_create', { name: 'a', pattern: 9, uuid: bdev.uuid }],
    ['bdev_toy_create', { name: 'b', pattern: 7, uuid: other.uuid }],
  ]);
  const backend = openBackend(structuredClone(bdev.backend), {} as BackendContext);
  t.match(backend, { pattern: 9 });
  // On top of it, as on any.
  await target.createBdev('error', { base_name: 'a' });
  t.ok(target.bdevs.find('EE_a'));
  await t.rejects(target.createBdev('toy', { name: 'a' }), { code: 'EEXIST' });
  await t.rejects(target.deleteBdev('a', 'null'), { code: 'ENODEV' });
  await target.deleteBdev('a', 'toy');
  t.ok((bdev as ToyBdev).closed);
  t.strictSame(target.bdevs.list(), [other]);
});

t.test('names are used once', async (t) => {
  t.throws(() => registerBdevKind(TOY), /toy/);
  t.throws(() => registerBackend('toy', () => new ToyBackend(0)), /toy/);
  t.throws(() => bdevKind('no such'), /no such/);
  t.equal(kindMadeBy('bdev_no_such_create'), undefined);
  t.equal(kindMadeBy('bdev_toy_delete'), undefined);
});

t.test('each kind keeps parameters that it has', async (t) => {
  for (const kind of BDEV_KINDS) {
    const { name, parameters, kept } = kind;
    const { properties } = parameters(SCHEMA_KIT);
    for (const key of Object.keys(kept)) {
      t.ok(Object.hasOwn(properties, key), `${name}: ${key}`);
    }
    t.equal(kindMadeBy(makingMethod(kind))?.name, name);
    t.equal(deletionOf(makingMethod(kind)), deletingMethod(kind));
  }
});
