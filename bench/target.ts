/** A target in a process of its own, configured by JSON-RPC as a user would. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { callRpc } from '../src/rpc/client.ts';

const CLI = fileURLToPath(new URL('../src/cli/doorbell.js', import.meta.url));
const START_TIMEOUT_MS = 20_000;

export interface BenchTarget {
  readonly pid: number;
  rpc(method: string, params?: unknown): Promise<unknown>;
  /** Serves a bdev that exists, as namespace 1 of a subsystem of its own. Returns the vfio-user socket. */
  serve(bdev: string): Promise<string>;
  stop(): Promise<void>;
}

/** Starts `doorbell serve` with one reactor on the given processor. */
export async function startTarget(
  cpu: number,
  extra: readonly string[] = [],
): Promise<BenchTarget> {
  const folder = mkdtempSync(join(tmpdir(), 'doorbell-bench-'));
  const socket = join(folder, 'rpc.sock');
  const args = [CLI, 'serve', '-r', socket, '--cores', String(cpu), '--log-level', 'warn'];
  const child = spawn(process.execPath, [...args, ...extra], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const rpc = (method: string, params?: unknown): Promise<unknown> =>
    callRpc(socket, method, params);
  await answering(child, () => rpc('spdk_get_version'));
  await rpc('nvmf_create_transport', {
    trtype: 'VFIOUSER',
    max_queue_depth: 1024,
    max_io_size: 1024 * 1024,
  });
  let served = 0;
  return {
    pid: child.pid!,
    rpc,
    async serve(bdev) {
      served += 1;
      const nqn = `nqn.2026-11.io.doorbell:bench${served}`;
      const traddr = join(folder, String(served));
      mkdirSync(traddr);
      await rpc('nvmf_create_subsystem', { nqn, allow_any_host: true });
      await rpc('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: bdev } });
      const listen_address = { trtype: 'VFIOUSER', traddr };
      await rpc('nvmf_subsystem_add_listener', { nqn, listen_address });
      return join(traddr, 'cntrl');
    },
    async stop() {
      child.kill('SIGTERM');
      await new Promise((resolve) => child.once('exit', resolve));
      rmSync(folder, { recursive: true, force: true });
    },
  };
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
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
