/** All methods of a target. */
import type { Target } from '../../target/target.ts';
import type { RpcMethod } from '../dispatcher.ts';
import { bdevMethods } from './bdev.ts';
import { iostatMethods } from './iostat.ts';
import { listenerMethods } from './listeners.ts';
import { nvmfMethods } from './nvmf.ts';
import { spdkMethods } from './spdk.ts';
import { transportMethods } from './transport.ts';
import { watchMethods } from './watch.ts';

/** `version`: of the package. */
export function allMethods(target: Target, version: string): RpcMethod[] {
  const methods: RpcMethod[] = [
    ...bdevMethods(target),
    ...iostatMethods(target),
    ...transportMethods(target),
    ...nvmfMethods(target),
    ...listenerMethods(target),
    ...watchMethods(target),
    ...spdkMethods({ version, target, methods: () => methods.map(({ name }) => name) }),
  ];
  return methods;
}
