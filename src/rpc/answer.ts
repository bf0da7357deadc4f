/** From a JSON value that came to what goes back: a request, a notification or a batch, whatever carries it. */
import { setImmediate } from 'node:timers/promises';
import { MAX_RPC_BATCH_ANSWER_BYTES } from '../limits.ts';
import type { Caller, Dispatcher } from './dispatcher.ts';
import { errorBody, idOf, RpcCode, RpcError, resultBody, toRequest } from './protocol.ts';

/** Runs what was asked for. Resolves with the answer as JSON text, or `undefined` if there is none. Never rejects. */
export async function answer(
  dispatcher: Dispatcher,
  value: unknown,
  caller: Caller = {},
): Promise<string | undefined> {
  if (Array.isArray(value)) {
    return answerBatch(dispatcher, value, caller);
  }
  const body = await answerOne(dispatcher, value, caller);
  return body && JSON.stringify(body);
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

/**
 * The requests of a batch run one after the other, and are answered together (JSON-RPC 2.0 §6). A small batch can ask for more than fits
 * into memory: once the answers are too long, what is left of it is refused and not carried out.
 */
async function answerBatch(
  dispatcher: Dispatcher,
  values: readonly unknown[],
  caller: Caller,
): Promise<string | undefined> {
  if (values.length === 0) {
    const reason = new RpcError(RpcCode.INVALID_REQUEST, 'Invalid request: empty batch');
    return JSON.stringify(errorBody(null, reason));
  }
  const answers: string[] = [];
  let length = 0;
  for (const value of values) {
    // Others get their turn: a batch can hold seconds of work.
    await setImmediate();
    const body =
      length > MAX_RPC_BATCH_ANSWER_BYTES
        ? refusal(value)
        : await answerOne(dispatcher, value, caller);
    if (body !== undefined) {
      const text = JSON.stringify(body);
      answers.push(text);
      length += text.length;
    }
  }
  return answers.length === 0 ? undefined : `[${answers.join(',')}]`;
}

function refusal(value: unknown): object {
  const reason = 'Not carried out: the answers of the batch are too long';
  return errorBody(idOf(value), new RpcError(RpcCode.INTERNAL_ERROR, reason));
}
