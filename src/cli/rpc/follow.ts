/** A call whose connection stays open: its answer, and each notification after it, as a JSON value a line. */
import { connect } from 'node:net';
import { JsonStream } from '../../rpc/json-stream.ts';
import { encode, RpcError } from '../../rpc/protocol.ts';
import { withErrnoDetail } from '../../util/errors.ts';
import { explainCall } from '../call.ts';
import { CliError, Exit, print } from '../output.ts';

/** Ends only with the process. Rejects with a CliError: refused, not reached, or the target has gone. */
export function follow(path: string, method: string, params: unknown): Promise<never> {
  return new Promise((_, reject) => {
    const stream = new JsonStream(Number.MAX_SAFE_INTEGER);
    const socket = connect(path);
    const fail = (error: unknown): void => {
      socket.destroy();
      reject(explainCall(error, path));
    };
    socket.on('error', (error) => fail(withErrnoDetail(error, path)));
    socket.on('end', () => fail(new CliError(`${path}: the target has gone`, Exit.UNREACHABLE)));
    socket.on('data', (chunk) => {
      try {
        stream.push(chunk);
        for (let next = stream.next(); next !== undefined; next = stream.next()) {
          show(next.value);
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

/** Throws the error of an answer that is one. */
function show(message: unknown): void {
  if (typeof message !== 'object' || message === null) {
    throw new CliError('the target sent something that is not JSON-RPC');
  }
  if ('error' in message) {
    const { error } = message;
    const known = typeof error === 'object' && error !== null && 'code' in error;
    throw known && 'message' in error
      ? new RpcError(Number(error.code), String(error.message))
      : new CliError('the target sent an error without a message');
  }
  print(
    JSON.stringify(
      'result' in message ? message.result : 'params' in message ? message.params : message,
    ),
  );
}
