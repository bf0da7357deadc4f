/** The methods that make and delete bdevs: two for each kind there is. */
import { type TBoolean, type TObject, type TString, Type } from 'typebox';
import type { BdevKind, BdevParams } from '../../bdev/kind.ts';
import { deletingMethod, makingMethod } from '../../bdev/kind-rules.ts';
import { BDEV_KINDS } from '../../bdev/kinds.ts';
import type { Target } from '../../target/target.ts';
import { DONE, SCHEMA_KIT, Text } from '../../util/schema.ts';
import { type DeclaredMethod, method, type RpcMethod } from '../dispatcher.ts';

const NAME = Type.Object({ name: Text('name or UUID of the bdev') });
const NEW_NAME = Type.String({ description: 'name of the new bdev' });

/** What one of a kind's two methods is called. */
type Verb<K, I extends 0 | 1, Otherwise extends string> = K extends {
  readonly verbs: readonly [string, string];
}
  ? K['verbs'][I]
  : Otherwise;

/** Each kind's methods with the types that its schema gives them. */
type KindMethods<K> = K extends BdevKind
  ?
      | DeclaredMethod<
          `bdev_${K['name']}_${Verb<K, 0, 'create'>}`,
          ReturnType<K['parameters']>,
          K extends { readonly answersTrue: true } ? TBoolean : TString
        >
      | DeclaredMethod<`bdev_${K['name']}_${Verb<K, 1, 'delete'>}`, typeof NAME, typeof DONE>
  : never;

export function kindMethods(target: Target): KindMethods<(typeof BDEV_KINDS)[number]>[] {
  const methods = BDEV_KINDS.flatMap((kind) => methodsOf(target, kind));
  // Their types are made of the same declarations.
  return methods as unknown as KindMethods<(typeof BDEV_KINDS)[number]>[];
}

function methodsOf(target: Target, kind: BdevKind): RpcMethod[] {
  const { name, summary, parameters, example, deletion, answersTrue = false } = kind;
  const params: TObject = parameters(SCHEMA_KIT);
  return [
    method({
      name: makingMethod(kind),
      summary,
      params,
      result: answersTrue ? DONE : NEW_NAME,
      ...(example !== undefined && { examples: [example] }),
      call: async (given) => {
        const bdev = await target.createBdev(name, given as BdevParams);
        return answersTrue ? true : bdev.name;
      },
    }),
    method({
      name: deletingMethod(kind),
      summary: ['Deletes the bdev, after its namespace if it is one.', deletion].join(' ').trim(),
      params: NAME,
      result: DONE,
      call: async (given) => {
        await target.deleteBdev(given.name, name);
        return true;
      },
    }),
  ];
}
