/** A target in a process of its own, configured through JSON-RPC: to be killed, and to have its use of the system measured. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { native } from '../../src/native/index.ts';
import { callRpc } from '../../src/rpc/client.ts';
import { Doorbell, type Outcome } from './rpc-process.ts';
import type { Test } from './target.ts';

/** What a process has of the system. */
export interface Usage {
  readonly fds: number;
  /** Mappings. */
  readonly maps: number;
  /** Bytes. */
  readonly resident: number;
  readonly threads: number;
}

export class TargetProcess {
  readonly folder: string;
  /** Of `serve`: options of nvmf_create_transport. */
  transport: Readonly<Record<string, unknown>> = {};
  readonly #rpc: string;
  #running: Doorbell | undefined;

  /** A folder for the target; it is not started. Killed at the end of the test. */
  constructor(t: Test) {
    this.folder = mkdtempSync(join(tmpdir(), 'db-'));
    this.#rpc = join(this.folder, 'rpc.sock');
    t.teardown(async () => {
      await this.kill();
      rmSync(this.folder, { recursive: true, force: true });
    });
  }

  /** Starts it, with more options; resolves when it answers. */
  async start(...options: string[]): Promise<void> {
    const cpus = native.getAffinity();
    const core = String(cpus[cpus.length - 1]);
    const idle = ['--spin-us', '0', '--max-sleep-us', '100'];
    const args = ['serve', '--rpc-socket', this.#rpc, '--cores', core, '--log-level', 'error'];
    this.#running = new Doorbell([...args, ...idle, ...options]);
    await this.#running.printed(/./);
  }

  /** The JSON-RPC socket. */
  get rpcPath(): string {
    return this.#rpc;
  }

  get pid(): number {
    return this.#process.child.pid!;
  }

  get #process(): Doorbell {
    if (this.#running === undefined) {
      throw new Error('the target does not run');
    }
    return this.#running;
  }

  /** Of the HTTP server; ends with a slash. */
  async httpUrl(): Promise<string> {
    return (await this.#process.printed(/^HTTP: +(\S+)$/m))[1];
  }

  /** Once it is over. */
  get outcome(): Promise<Outcome> {
    return this.#process.outcome;
  }

  signal(name: NodeJS.Signals): void {
    this.#process.child.kill(name);
  }

  /** SIGTERM; resolves with the exit code. */
  async stop(): Promise<number> {
    this.signal('SIGTERM');
    return (await this.#process.outcome).code;
  }

  async kill(): Promise<void> {
    this.#running?.child.kill('SIGKILL');
    await this.#running?.outcome;
    this.#running = undefined;
  }

  call(method: string, params?: unknown): Promise<unknown> {
    return callRpc(this.#rpc, method, params);
  }

  /** Serves bdevs that exist as namespaces 1, 2, …; gives the socket. */
  async serve(...bdevs: string[]): Promise<string> {
    const nqn = 'nqn.2026-11.io.doorbell:test';
    const transport = { trtype: 'VFIOUSER', max_io_size: 1024 * 1024, ...this.transport };
    await this.call('nvmf_create_transport', transport);
    await this.call('nvmf_create_subsystem', { nqn, allow_any_host: true });
    for (const bdev_name of bdevs) {
      await this.call('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name } });
    }
    const traddr = join(this.folder, 'vm');
    mkdirSync(traddr, { recursive: true });
    const listen_address = { trtype: 'VFIOUSER', traddr };
    await this.call('nvmf_subsystem_add_listener', { nqn, listen_address });
    return join(traddr, 'cntrl');
  }

  usage(): Usage {
    const proc = `/proc/${this.pid}`;
    const status = readFileSync(join(proc, 'status'), 'utf8');
    // Without those that the kernel makes, and ends, for io_uring's operations that block.
    const threads = readdirSync(join(proc, 'task')).filter((tid) => {
      try {
        return !readFileSync(join(proc, 'task', tid, 'comm'), 'utf8').startsWith('iou-');
      } catch {
        return false;
      }
    });
    const field = (name: string) =>
      Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1]);
    return {
      fds: readdirSync(join(proc, 'fd')).length,
      maps: readFileSync(join(proc, 'maps'), 'utf8').split('\n').length - 1,
      resident: field('VmRSS') * 1024,
      threads: threads.length,
    };
  }
}
