/** What the short form says of the process. */
import { type HttpAddress, parseHttpAddress, parseOrigin } from '../../http/address.ts';
import { describeError } from '../../util/errors.ts';
import { parseCpuList } from '../cpus.ts';
import { parseOwner, parseSocketMode } from '../socket-access.ts';
import type { Path, Problem } from './problem.ts';
import type { ShortForm } from './schema.ts';
import { resolveFrom, type Source } from './source.ts';

/** What a file says of the process; as in ServeOptions. */
export interface Settings {
  readonly rpcSocket?: string;
  readonly rpcAccess?: { readonly mode?: number; readonly owner?: { uid: number; gid: number } };
  readonly cpus?: readonly number[];
  readonly reactors?: number;
  readonly spinUs?: number;
  readonly maxSleepUs?: number;
  readonly trapDoorbells?: boolean;
  readonly mapFileMemory?: boolean;
  readonly requireSharedMemory?: boolean;
  readonly http?: {
    readonly address: HttpAddress;
    readonly tokenFile?: string;
    readonly origins: readonly string[];
  };
}

/** Adds what is wrong to `problems`. */
export function compileSettings(form: ShortForm, source: Source, problems: Problem[]): Settings {
  const parse = <T>(path: Path, read: () => T): T | undefined => {
    try {
      return read();
    } catch (error) {
      problems.push({ place: source.place(path), message: describeError(error) });
      return undefined;
    }
  };
  const { cores, reactors, http } = form;
  const { file } = source;
  const rpcSocket = form['rpc-socket'];
  const mode = form['rpc-socket-mode'];
  const owner = form['rpc-socket-owner'];
  if (cores !== undefined && reactors !== undefined) {
    const message = "'cores' says how many reactors there are";
    problems.push({ place: source.place(['reactors']), message });
  }
  const parsed = {
    cpus: cores === undefined ? undefined : parse(['cores'], () => parseCpuList(String(cores))),
    mode: mode === undefined ? undefined : parse(['rpc-socket-mode'], () => parseSocketMode(mode)),
    owner: owner === undefined ? undefined : parse(['rpc-socket-owner'], () => parseOwner(owner)),
    address:
      http === undefined
        ? undefined
        : parse(['http'], () => parseHttpAddress(String(http.address))),
    origins: http?.origins?.map((origin, i) =>
      parse(['http', 'origins', i], () => parseOrigin(origin)),
    ),
  };
  const token = http?.['token-file'];
  return {
    ...(rpcSocket !== undefined && { rpcSocket: resolveFrom(file, rpcSocket) }),
    ...((mode ?? owner) !== undefined && {
      rpcAccess: {
        ...(parsed.mode !== undefined && { mode: parsed.mode }),
        ...(parsed.owner !== undefined && { owner: parsed.owner }),
      },
    }),
    ...(parsed.cpus !== undefined && { cpus: parsed.cpus }),
    ...(reactors !== undefined && { reactors }),
    ...(form['spin-us'] !== undefined && { spinUs: form['spin-us'] }),
    ...(form['max-sleep-us'] !== undefined && { maxSleepUs: form['max-sleep-us'] }),
    ...(form['trap-doorbells'] !== undefined && { trapDoorbells: form['trap-doorbells'] }),
    ...(form['map-file-memory'] !== undefined && { mapFileMemory: form['map-file-memory'] }),
    ...(form['require-shared-memory'] !== undefined && {
      requireSharedMemory: form['require-shared-memory'],
    }),
    ...(parsed.address !== undefined && {
      http: {
        address: parsed.address,
        ...(token !== undefined && { tokenFile: resolveFrom(file, token) }),
        origins: (parsed.origins ?? []).filter((origin) => origin !== undefined),
      },
    }),
  };
}
