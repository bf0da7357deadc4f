/** One call to a JSON-RPC socket, ours or SPDK's. */
import { connect } from 'node:net';
import { FailedError, withErrnoDetail } from '../util/errors.ts';
import { JsonStream } from './json-stream.ts';
import { encode, RpcError } from './protocol.ts';

/**
 * Calls a method and resolves with its result. Rejects with an {@link RpcError} if the target answers with one, with a FailedError
 * if it answers with something else or not within `timeoutMs`, and with what the system says if it cannot be reached.
 */
export function callRpc(
  path: string,
  method: string,
  params: unknown,
  timeoutMs = 60_000,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const answers = new JsonStream(Number.MAX_SAFE_INTEGER);
    const socket = connect(path);
    const fail = (error: unknown): void => {
      socket.destroy();
      reject(error);
    };
    socket.setTimeout(timeoutMs, () =>
      fail(new FailedError(`no answer from ${path} within ${timeoutMs} ms`)),
    );
    socket.on('error', (error) => fail(withErrnoDetail(error, path)));
    socket.on('end', () =>
      fail(new FailedError(`${path} closed the connection without an answer`)),
    );
    socket.on('data', (chunk) => {
      try {
        const answer = nextOf(answers, chunk, path);
        if (answer !== undefined) {
          socket.destroy();
          resolve(resultOf(answer.value));
        }
      } catch (error) {
        fail(error);
      }
    });
    socket.write(
      encode({ jsonrpc: '2.0', id: 1, method, ...(params !== undefined && { params }) }),
    );
  });
}

function nextOf(answers: JsonStream, chunk: Buffer, path: string): { value: unknown } | undefined {
  try {
    answers.push(chunk);
    return answers.next();
  } catch {
    throw new FailedError(`${path} does not answer in JSON: it is no JSON-RPC socket`);
  }
}

function resultOf(answer: unknown): unknown {
  if (typeof answer === 'object' && answer !== null) {
    if ('result' in answer) {
      return answer.result;
    }
    const error = 'error' in answer ? answer.error : undefined;
    if (typeof error === 'object' && error !== null && 'code' in error && 'message' in error) {
      throw new RpcError(Number(error.code), String(error.message));
    }
  }
  throw new FailedError('the answer is not a JSON-RPC answer');
}
