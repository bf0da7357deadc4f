/** Calls to a running target for the commands: what goes wrong becomes one line for the operator. */
import { callRpc } from '../rpc/client.ts';
import { RpcError } from '../rpc/protocol.ts';
import { describeError, errnoOf } from '../util/errors.ts';
import { CliError, Exit } from './output.ts';

/** Rejects with a {@link CliError}. */
export async function callTarget(
  socket: string,
  method: string,
  params: unknown,
  timeoutMs: number,
): Promise<unknown> {
  try {
    return await callRpc(socket, method, params, timeoutMs);
  } catch (error) {
    throw explainCall(error, socket);
  }
}

/** What a failed call means to who typed it. */
export function explainCall(error: unknown, socket: string): CliError {
  if (error instanceof CliError) {
    return error;
  }
  if (error instanceof RpcError) {
    return new CliError(`${error.message} (code ${error.code})`);
  }
  return errnoOf(error) === undefined
    ? new CliError(describeError(error))
    : new CliError(
        `cannot reach a target: ${describeError(error)} (is it running? its socket is ${socket} or given by --socket)`,
        Exit.UNREACHABLE,
      );
}
