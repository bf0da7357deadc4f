/** NBD servers of others, as Debian has them: nbdkit and qemu-nbd, each a process on a socket of its own. */
import { type ChildProcess, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { Test } from './target.ts';
import { spawnTied } from './tied.ts';

/** What the set-up has found or fetched (src/setup/nbd.mjs). */
interface Servers {
  readonly nbdkit: readonly string[];
  readonly qemuNbd: readonly string[];
  /** Where nbdkit's plugins and filters are, if not where it looks for them. */
  readonly modules?: string;
  readonly unavailable?: undefined;
}

const OUTCOME = new URL('../../nbd.json', import.meta.url);

const has = (program: string): boolean =>
  spawnSync(program, ['--version'], { stdio: 'ignore' }).status === 0;

function findServers(): Servers | { readonly unavailable: string } {
  if (existsSync(OUTCOME)) {
    return JSON.parse(readFileSync(OUTCOME, 'utf8'));
  }
  return has('nbdkit') && has('qemu-nbd')
    ? { nbdkit: ['nbdkit'], qemuNbd: ['qemu-nbd'] }
    : {
        unavailable: 'nbdkit or qemu-nbd is not installed, and the set-up of the tests was not run',
      };
}

const servers = findServers();

/** Why there are no such servers here; false if there are. */
export const noNbdkit: string | false = servers.unavailable ?? false;
export const noQemuNbd = noNbdkit;

function nbdkitCommand(socket: string, args: readonly string[]): readonly string[] {
  const { nbdkit, modules } = servers as Servers;
  const command = [...nbdkit, '-f', '-U', socket];
  if (modules === undefined) {
    return [...command, ...args];
  }
  const plugin = args.find((arg) => !arg.startsWith('-'));
  const found = args.map((arg) =>
    arg === plugin
      ? `${modules}/plugins/nbdkit-${arg}-plugin.so`
      : arg.replace(/^--filter=(.*)$/, `--filter=${modules}/filters/nbdkit-$1-filter.so`),
  );
  return [...command, ...found];
}

function qemuNbdCommand(socket: string, args: readonly string[]): readonly string[] {
  return [...(servers as Servers).qemuNbd, '-t', '-k', socket, ...args];
}

const NOTHING = new Int32Array(new SharedArrayBuffer(4));

/** How long a server may take to listen. Milliseconds. */
const PATIENCE_MS = 10_000;

/** A server on a UNIX socket. It can be killed, and started again in its place. */
export class NbdServer {
  readonly socket: string;
  readonly #argsOf: (socket: string, last: readonly string[]) => readonly string[];
  #arguments: readonly string[];
  #child: ChildProcess;

  private constructor(
    socket: string,
    last: readonly string[],
    argsOf: (socket: string, last: readonly string[]) => readonly string[],
  ) {
    this.socket = socket;
    this.#argsOf = argsOf;
    this.#arguments = argsOf(socket, last);
    this.#child = this.#spawn();
  }

  /** `nbdkit` with these arguments: plugin, filters, parameters. Ends with the test. */
  static nbdkit(t: Test, ...args: readonly string[]): Promise<NbdServer> {
    return NbdServer.#start(t, args, nbdkitCommand);
  }

  /** `qemu-nbd` with these arguments: the image last. */
  static qemuNbd(t: Test, ...args: readonly string[]): Promise<NbdServer> {
    return NbdServer.#start(t, args, qemuNbdCommand);
  }

  static async #start(
    t: Test,
    last: readonly string[],
    argsOf: (socket: string, last: readonly string[]) => readonly string[],
  ): Promise<NbdServer> {
    const folder = mkdtempSync(join(tmpdir(), 'db-nbd-'));
    const socket = join(folder, 'nbd.sock');
    const server = new NbdServer(socket, last, argsOf);
    t.teardown(async () => {
      await server.kill();
      rmSync(folder, { recursive: true });
    });
    await server.#listens();
    return server;
  }

  /** Of an export by its name. */
  uri(exportName = ''): string {
    return `nbd+unix:///${encodeURIComponent(exportName)}?socket=${this.socket}`;
  }

  get pid(): number {
    return this.#child.pid!;
  }

  /** Ends it at once, with all that it knows. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
  }

  /** Another one in its place, with these arguments if there are any. */
  async restart(...last: readonly string[]): Promise<void> {
    await this.kill();
    if (last.length > 0) {
      this.#arguments = this.#argsOf(this.socket, last);
    }
    rmSync(this.socket, { force: true });
    this.#child = this.#spawn();
    await this.#listens();
  }

  /** Nothing of it runs, and its connections stay. */
  freeze(): void {
    this.#child.kill('SIGSTOP');
    // A thread that is in the middle of something stops a little later.
    const tasks = `/proc/${this.pid}/task`;
    const stopped = (task: string) =>
      /^State:\s+T/m.test(readFileSync(`${tasks}/${task}/status`, 'utf8'));
    while (!readdirSync(tasks).every(stopped)) {
      Atomics.wait(NOTHING, 0, 0, 1);
    }
  }

  thaw(): void {
    this.#child.kill('SIGCONT');
  }

  #spawn(): ChildProcess {
    const [program, ...args] = this.#arguments;
    const child = spawnTied(program, args);
    child.stdout.resume();
    child.stderr.resume();
    return child;
  }

  async #listens(): Promise<void> {
    for (let waited = 0; !existsSync(this.socket) || !(await answers(this.socket)); waited += 10) {
      if (waited > PATIENCE_MS || this.#child.exitCode !== null) {
        throw new Error(`the server does not listen: ${this.#arguments.join(' ')}`);
      }
      await pause(10);
    }
  }
}

/** Whether it takes connections. */
async function answers(path: string): Promise<boolean> {
  const socket = connect(path);
  try {
    await once(socket, 'data');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
