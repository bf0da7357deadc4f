/** From a JSON value that came to what goes back: a request, a notification or a batch, whatever carries it. */
import type { Caller, Dispatcher } from './dispatcher.ts';
import { errorBody, idOf, RpcCode, RpcError, resultBody, toRequest } from './protocol.ts';

/** Runs what was asked for. Resolves with the body of the answer, or `undefined` if there is none. Never rejects. */
export function answer(
  dispatcher: Dispatcher,
  value: unknown,
  caller: Caller = {},
): Promise<object | undefined> {
  return Array.isArray(value)
    ? answerBatch(dispatcher, value, caller)
    : answerOne(dispatcher, value, caller);
}

async function answerOne(
  dispatcher: Dispatcher,
  value: unknown,
  caller: Caller,
): Promise<object | undefined> {
  try {
    const { id, method, params } = toRequest(value);
    const outcome = dispatcher.dispatch(method, params, caller);
    if (id === null) {
      await outcome.catch(() => {});
      return undefined;
    }
    return resultBody(id, await outcome);
  } catch (error) {
    return errorBody(idOf(value), error as RpcError);
  }
}

/** The requests of a batch run one after the other, and are answered together (JSON-RPC 2.0 §6). */
async function answerBatch(
  dispatcher: Dispatcher,
  values: readonly unknown[],
  caller: Caller,
): Promise<object | undefined> {
  if (values.length === 0) {
    return errorBody(null, new RpcError(RpcCode.INVALID_REQUEST, 'Invalid request: empty batch'));
  }
  const answers: object[] = [];
  for (const value of values) {
    const one = await answerOne(dispatcher, value, caller);
    if (one !== undefined) {
      answers.push(one);
    }
  }
  return answers.length === 0 ? undefined : answers;
}
