/** The methods of a target as functions, with the types that their schemas give to parameters and results. */
import type { Static } from 'typebox';
import type { Dispatcher } from './dispatcher.ts';
import type { allMethods } from './methods/index.ts';

type Declared = ReturnType<typeof allMethods>[number];

export type RpcName = Declared['name'];

type Named<N extends RpcName> = Extract<Declared, { readonly name: N }>;

export type RpcParams<N extends RpcName> = Static<Named<N>['params']>;

export type RpcResult<N extends RpcName> = Static<Named<N>['result']>;

/** What a call passes: parameters, which may be left out where none is required. */
export type RpcArguments<N extends RpcName> =
  Record<never, never> extends RpcParams<N> ? [params?: RpcParams<N>] : [params: RpcParams<N>];

/** Each method as a function of its name. */
export type RpcCalls = {
  readonly [N in RpcName]: (...args: RpcArguments<N>) => Promise<RpcResult<N>>;
};

/** All methods of a dispatcher. They reject with an RpcError. */
export function rpcCalls(dispatcher: Dispatcher): RpcCalls {
  const calls = dispatcher.names.map((name) => [
    name,
    // Copies, as over a socket: neither side changes what the other has.
    async (params?: unknown) =>
      structuredClone(await dispatcher.dispatch(name, structuredClone(params))),
  ]);
  // The names are those of the declared methods, and the dispatcher checks parameters against the schemas that the types are made of.
  return Object.fromEntries(calls) as RpcCalls;
}
