/** `doorbell rpc`: one call, its result as JSON on stdout. */
import { text } from 'node:stream/consumers';
import { callRpc } from '../rpc/client.ts';
import { RpcError } from '../rpc/protocol.ts';
import { describeError, errnoOf } from '../util/errors.ts';

export interface RpcCallOptions {
  readonly socket: string;
  readonly timeoutMs: number;
}

/** `params`: JSON, or `-` to read it from stdin. The exit code: 0, or 1 with the reason on stderr. */
export async function runRpc(
  method: string,
  params: string | undefined,
  { socket, timeoutMs }: RpcCallOptions,
): Promise<number> {
  try {
    const source = params === '-' ? await text(process.stdin) : params;
    const result = await callRpc(socket, method, parseParams(source), timeoutMs);
    process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
    return 0;
  } catch (error) {
    process.stderr.write(`doorbell: ${explain(error, socket)}\n`);
    return 1;
  }
}

function parseParams(source: string | undefined): unknown {
  if (source === undefined || source.trim() === '') {
    return undefined;
  }
  try {
    return JSON.parse(source);
  } catch (error) {
    throw new Error(`the parameters are not JSON: ${(error as Error).message}`);
  }
}

function explain(error: unknown, socket: string): string {
  if (error instanceof RpcError) {
    return `${error.message} (code ${error.code})`;
  }
  return errnoOf(error) === undefined
    ? describeError(error)
    : `cannot reach a target: ${describeError(error)} (is it running? its socket is ${socket} or given by --socket)`;
}
