/** `doorbell rpc`: one call, many, or what there is to call. */
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { callRpc } from '../../rpc/client.ts';
import { RpcCode, RpcError } from '../../rpc/protocol.ts';
import { similar } from '../../util/similar.ts';
import { explainCall } from '../call.ts';
import { CliError, Exit, print, printJson } from '../output.ts';
import { formatTable } from '../table.ts';
import { follow } from './follow.ts';
import { discover, type MethodDoc, methodHelp, methodNames } from './methods.ts';
import { needsSchema, parseLine, parseParams } from './params.ts';

export interface RpcFlags {
  readonly socket: string;
  /** Seconds. */
  readonly timeout: number;
  readonly list?: true;
  readonly batch?: true;
  readonly follow?: true;
  readonly json?: true;
}

/** One call. `words`: `-` reads them as JSON from stdin. Rejects with a CliError. */
export async function runCall(
  method: string,
  words: readonly string[],
  flags: RpcFlags,
): Promise<void> {
  const source = words.length === 1 && words[0] === '-' ? [await text(process.stdin)] : words;
  const target = new RpcTarget(flags);
  const params = await target.parse(method, source);
  if (flags.follow) {
    await follow(flags.socket, method, params);
    return;
  }
  printResult(await target.call(method, params), flags);
}

/** A call for each line of stdin, one after the other; the first that fails ends it. Rejects with a CliError. */
export async function runBatch(flags: RpcFlags): Promise<void> {
  const target = new RpcTarget(flags);
  let number = 0;
  for await (const line of createInterface({ input: process.stdin })) {
    number += 1;
    try {
      const request = parseLine(line);
      if (request !== undefined) {
        const params = await target.parse(request.method, request.words);
        print(JSON.stringify(await target.call(request.method, params)));
      }
    } catch (error) {
      const { message, exitCode } = explainCall(error, flags.socket);
      throw new CliError(`line ${number}: ${message}`, exitCode);
    }
  }
}

/** The methods of the target. */
export async function runList(flags: RpcFlags): Promise<void> {
  const target = new RpcTarget(flags);
  const names = await target.names();
  if (flags.json) {
    printJson(names);
    return;
  }
  const docs = new Map((await target.docs())?.map((doc) => [doc.name, doc.summary]));
  const table = formatTable(
    [{ title: 'Method' }, { title: 'Summary' }],
    names.map((name) => [name, docs.get(name) ?? '']),
  );
  print((docs.size === 0 ? names : table).join('\n'));
}

/** What a method does and takes, as the target tells it. */
export async function runMethodHelp(method: string, flags: RpcFlags): Promise<void> {
  const target = new RpcTarget(flags);
  const docs = await target.docs();
  if (docs === undefined) {
    throw new CliError(
      `the target does not describe its methods (it has no rpc.discover); those of doorbell are in docs/rpc.md`,
    );
  }
  const doc = docs.find(({ name }) => name === method);
  if (doc === undefined) {
    throw await target.unknown(method);
  }
  print(methodHelp(doc));
}

function printResult(result: unknown, { json }: RpcFlags): void {
  print(JSON.stringify(result, null, json ? 0 : 2));
}

/** A target, and what it told of itself. All reject with a CliError. */
class RpcTarget {
  readonly #socket: string;
  readonly #timeoutMs: number;
  #docs: Promise<readonly MethodDoc[] | undefined> | undefined;

  constructor({ socket, timeout }: RpcFlags) {
    this.#socket = socket;
    this.#timeoutMs = timeout * 1000;
  }

  async call(method: string, params: unknown): Promise<unknown> {
    try {
      return await callRpc(this.#socket, method, params, this.#timeoutMs);
    } catch (error) {
      if (error instanceof RpcError && error.code === RpcCode.METHOD_NOT_FOUND) {
        throw await this.unknown(method);
      }
      throw explainCall(error, this.#socket);
    }
  }

  async parse(method: string, words: readonly string[]): Promise<unknown> {
    const doc = needsSchema(words)
      ? (await this.docs())?.find(({ name }) => name === method)
      : undefined;
    return parseParams(words, doc);
  }

  async docs(): Promise<readonly MethodDoc[] | undefined> {
    this.#docs ??= discover(this.#socket, this.#timeoutMs);
    try {
      return await this.#docs;
    } catch (error) {
      throw explainCall(error, this.#socket);
    }
  }

  async names(): Promise<readonly string[]> {
    try {
      return await methodNames(this.#socket, this.#timeoutMs);
    } catch (error) {
      throw explainCall(error, this.#socket);
    }
  }

  /** The error of a method that there is not, with the one that was probably meant. */
  async unknown(method: string): Promise<CliError> {
    const names = await this.names().catch((): string[] => []);
    const meant = similar(method, names);
    const hint = meant === undefined ? 'doorbell rpc --list shows all' : `did you mean ${meant}?`;
    return new CliError(
      `Method not found: ${method}: ${hint} (code ${RpcCode.METHOD_NOT_FOUND})`,
      Exit.FAILED,
    );
  }
}
