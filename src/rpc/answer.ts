/** From a JSON value that came to what goes back: a request, a notification or a batch, whatever carries it. */
import { setImmediate } from 'node:timers/promises';
import { MAX_RPC_BATCH_ANSWER_BYTES } from '../limits.ts';
import type { Caller, Dispatcher } from './dispatcher.ts';
import type { JsonValue } from './json-stream.ts';
import {
  errorText,
  hasId,
  idTexts,
  RpcCode,
  RpcError,
  type RpcIdText,
  resultText,
  toRequest,
} from './protocol.ts';

const TOO_LONG = new RpcError(
  RpcCode.INTERNAL_ERROR,
  'Not carried out: the answers of the batch are too long',
);

/** Runs what was asked for. Resolves with the answer as JSON text, or `undefined` if there is none. Never rejects. */
export async function answer(
  dispatcher: Dispatcher,
  { value, text }: JsonValue,
  caller: Caller = {},
): Promise<string | undefined> {
  const ids = idTexts(text);
  return Array.isArray(value)
    ? answerBatch(dispatcher, value, ids, caller)
    : answerOne(dispatcher, value, ids[0], caller);
}

async function answerOne(
  dispatcher: Dispatcher,
  value: unknown,
  id: RpcIdText | undefined,
  caller: Caller,
): Promise<string | undefined> {
  try {
    const { isNotification, method, params } = toRequest(value);
    const outcome = dispatcher.dispatch(method, params, caller);
    if (isNotification || id === undefined) {
      await outcome.catch(() => {});
      return undefined;
    }
    return resultText(id, await outcome);
  } catch (error) {
    return refusal(value, id, error as RpcError);
  }
}

function refusal(value: unknown, id: RpcIdText | undefined, error: RpcError): string {
  return errorText(hasId(value) && id !== undefined ? id : null, error);
}

/**
 * The requests of a batch run one after the other, and are answered together (JSON-RPC 2.0 §6). A small batch can ask for more than fits
 * into memory: once the answers are too long, what is left of it is refused and not carried out.
 */
async function answerBatch(
  dispatcher: Dispatcher,
  values: readonly unknown[],
  ids: readonly (RpcIdText | undefined)[],
  caller: Caller,
): Promise<string | undefined> {
  if (values.length === 0) {
    const reason = new RpcError(RpcCode.INVALID_REQUEST, 'Invalid request: empty batch');
    return errorText(null, reason);
  }
  const answers: string[] = [];
  let length = 0;
  for (const [i, value] of values.entries()) {
    // Others get their turn: a batch can hold seconds of work.
    await setImmediate();
    const text =
      length > MAX_RPC_BATCH_ANSWER_BYTES
        ? refusal(value, ids[i], TOO_LONG)
        : await answerOne(dispatcher, value, ids[i], caller);
    if (text !== undefined) {
      answers.push(text);
      length += text.length;
    }
  }
  return answers.length === 0 ? undefined : `[${answers.join(',')}]`;
}
