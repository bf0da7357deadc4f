/** A target in a process of its own, configured by JSON-RPC as a user would. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { callRpc } from '../src/rpc/client.ts';

const CLI = fileURLToPath(new URL('../src/cli/doorbell.js', import.meta.url));
const START_TIMEOUT_MS = 20_000;

export interface BenchTargetOptions {
  /** Processors of the reactors, one each. */
  readonly cpus: readonly number[];
  /** Further arguments of `doorbell serve`. */
  readonly args?: readonly string[];
  /** The command line's program, of this checkout by default. */
  readonly program?: string;
  /** Options of node, and what it then prints on stdout. */
  readonly nodeArgs?: readonly string[];
  readonly onOutput?: (text: string) => void;
  /** Parameters of nvmf_create_transport, over those of a bench. */
  readonly transport?: Readonly<Record<string, unknown>>;
}

export interface BenchTarget {
  readonly pid: number;
  /** From the start of the process to the first answer of its JSON-RPC socket. Milliseconds. */
  readonly startMs: number;
  rpc(method: string, params?: unknown): Promise<unknown>;
  /** Serves bdevs that exist as namespaces 1, 2, … of a subsystem of its own. Resolves with the vfio-user socket. */
  serve(...bdevs: string[]): Promise<string>;
  stop(): Promise<void>;
}

/** Starts `doorbell serve`. */
export async function startTarget({
  cpus,
  args = [],
  program = CLI,
  nodeArgs = [],
  onOutput,
  transport = {},
}: BenchTargetOptions): Promise<BenchTarget> {
  const folder = mkdtempSync(join(tmpdir(), 'doorbell-bench-'));
  const socket = join(folder, 'rpc.sock');
  const start = performance.now();
  const child = spawn(
    process.execPath,
    [
      ...nodeArgs,
      program,
      'serve',
      '-r',
      socket,
      '--cores',
      cpus.join(),
      '--log-level',
      'warn',
      ...args,
    ],
    { stdio: ['ignore', onOutput === undefined ? 'ignore' : 'pipe', 'inherit'] },
  );
  child.stdout?.setEncoding('utf8').on('data', (text: string) => onOutput?.(text));
  const kill = (): boolean => child.kill('SIGKILL');
  process.on('exit', kill);
  const rpc = (method: string, params?: unknown): Promise<unknown> =>
    callRpc(socket, method, params);
  const stop = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGTERM');
      await new Promise((resolve) => child.once('exit', resolve));
    }
    process.off('exit', kill);
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await answering(child, () => rpc('spdk_get_version'));
    const startMs = performance.now() - start;
    await createTransport(rpc, transport);
    return { pid: child.pid!, startMs, rpc, serve: server(rpc, folder), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

type Rpc = BenchTarget['rpc'];

function createTransport(rpc: Rpc, transport: BenchTargetOptions['transport']): Promise<unknown> {
  return rpc('nvmf_create_transport', {
    trtype: 'VFIOUSER',
    max_queue_depth: 4096,
    max_io_size: 1024 * 1024,
    ...transport,
  });
}

/** `serve` of a target; the sockets are in folders in `folder`. */
function server(rpc: Rpc, folder: string): BenchTarget['serve'] {
  let served = 0;
  return async (...bdevs) => {
    served += 1;
    const nqn = `nqn.2026-11.io.doorbell:bench${served}`;
    const traddr = join(folder, String(served));
    mkdirSync(traddr);
    const max_namespaces = Math.max(32, bdevs.length);
    await rpc('nvmf_create_subsystem', { nqn, allow_any_host: true, max_namespaces });
    for (const bdev_name of bdevs) {
      await rpc('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name } });
    }
    const listen_address = { trtype: 'VFIOUSER', traddr };
    await rpc('nvmf_subsystem_add_listener', { nqn, listen_address });
    return join(traddr, 'cntrl');
  };
}

/**
 * Starts another target, by a command of the shell, that answers SPDK's JSON-RPC at a socket. Rejects if it ends or does not answer; what it
 * prints goes to stderr.
 */
export async function startPeer(command: string, socket: string): Promise<BenchTarget> {
  const folder = mkdtempSync(join(tmpdir(), 'doorbell-peer-'));
  const start = performance.now();
  // A group of its own: the shell may not be the target.
  const child = spawn('/bin/sh', ['-c', command], { stdio: ['ignore', 2, 2], detached: true });
  const signal = (name: NodeJS.Signals) => () => {
    try {
      process.kill(-child.pid!, name);
    } catch {
      // It is gone.
    }
  };
  const kill = signal('SIGKILL');
  process.on('exit', kill);
  const rpc: Rpc = (method, params) => callRpc(socket, method, params);
  const stop = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) {
      const over = new Promise((resolve) => child.once('exit', resolve));
      signal('SIGTERM')();
      await over;
    }
    kill();
    process.off('exit', kill);
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await answering(child, () => rpc('spdk_get_version'));
    const startMs = performance.now() - start;
    await createTransport(rpc, {});
    return { pid: child.pid!, startMs, rpc, serve: server(rpc, folder), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function answering(child: ChildProcess, ask: () => Promise<unknown>): Promise<void> {
  const deadline = Date.now() + START_TIMEOUT_MS;
  for (;;) {
    try {
      await ask();
      return;
    } catch (error) {
      if (Date.now() > deadline || child.exitCode !== null) {
        throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}
