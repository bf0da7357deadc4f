/** A target and the neighbour on it, before which trouble after trouble plays. */
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { native } from '../../../src/native/index.ts';
import { TargetProcess } from '../target-process.ts';
import { Neighbour } from './neighbour.ts';

export interface Configuration {
  readonly reactors: 1 | 2;
  /** Doorbells are trapped (`disable_mappable_bar0`), or mapped. */
  readonly trapped: boolean;
}

export const CONFIGURATIONS: readonly Configuration[] = [
  { reactors: 1, trapped: false },
  { reactors: 1, trapped: true },
  { reactors: 2, trapped: false },
  { reactors: 2, trapped: true },
];

export function describeConfiguration({ reactors, trapped }: Configuration): string {
  const doorbells = trapped ? 'trapped' : 'mapped';
  return `${reactors} reactor${reactors === 1 ? '' : 's'}, ${doorbells} doorbells`;
}

const PAGES = 256;
const DEPTH = 8;

export interface StageOptions {
  /** The neighbour polls without a pause: for measurements. */
  readonly polls?: boolean;
  /** Further options of `doorbell serve`. */
  readonly options?: readonly string[];
}

export class Stage {
  readonly configuration: Configuration;
  readonly target: TargetProcess;
  readonly neighbour: Neighbour;
  readonly #teardowns: (() => unknown)[];

  /** Rejects if the target or the neighbour cannot start; nothing is left then. */
  static async open(configuration: Configuration, options: StageOptions = {}): Promise<Stage> {
    const teardowns: (() => unknown)[] = [];
    const target = new TargetProcess({ teardown: (fn) => teardowns.push(fn) });
    try {
      const { reactors, trapped } = configuration;
      const cpus = native.getAffinity().reverse();
      const cores = Array.from({ length: reactors }, (_, i) => cpus[i % cpus.length]).join();
      await target.start('--cores', cores, '--http', '127.0.0.1:0', ...(options.options ?? []));
      await target.call('nvmf_create_transport', {
        trtype: 'VFIOUSER',
        max_io_size: 1024 * 1024,
        disable_mappable_bar0: trapped,
      });
      const image = join(target.folder, 'neighbour.img');
      writeFileSync(image, '');
      truncateSync(image, PAGES * 4096);
      const size = { num_blocks: PAGES * 8, block_size: 512 };
      await target.call('bdev_malloc_create', { name: 'neighbour-ram', ...size });
      const file = { name: 'neighbour-file', filename: image, block_size: 512 };
      await target.call('bdev_uring_create', file);
      const { socket } = await serve(target, 'neighbour', ['neighbour-ram', 'neighbour-file']);
      const neighbour = await Neighbour.start({
        socket,
        shadow: trapped,
        pages: PAGES,
        depth: DEPTH,
        polls: options.polls ?? false,
      });
      return new Stage(configuration, target, neighbour, teardowns);
    } catch (error) {
      await end(teardowns);
      throw error;
    }
  }

  private constructor(
    configuration: Configuration,
    target: TargetProcess,
    neighbour: Neighbour,
    teardowns: (() => unknown)[],
  ) {
    this.configuration = configuration;
    this.target = target;
    this.neighbour = neighbour;
    this.#teardowns = teardowns;
  }

  /** The neighbour reads all it wrote, and the target ends as it should. Rejects if anything is wrong; nothing is left then either. */
  async close(): Promise<{ readonly checked: number; readonly code: number }> {
    try {
      const checked = await this.neighbour.finish();
      return { checked, code: await this.target.stop() };
    } finally {
      await this.abandon();
    }
  }

  /** After a failure: kills both. */
  async abandon(): Promise<void> {
    await this.neighbour.kill();
    await end(this.#teardowns);
  }
}

async function end(teardowns: (() => unknown)[]): Promise<void> {
  for (const fn of teardowns.splice(0).reverse()) {
    await fn();
  }
}

export interface Served {
  readonly nqn: string;
  readonly socket: string;
}

/** A subsystem with these bdevs as namespaces 1, 2, …, served on a socket. */
export async function serve(
  target: TargetProcess,
  name: string,
  bdevs: readonly string[],
): Promise<Served> {
  const nqn = `nqn.2026-11.io.doorbell:${name}`;
  await target.call('nvmf_create_subsystem', {
    nqn,
    allow_any_host: true,
    max_namespaces: Math.max(32, bdevs.length),
  });
  for (const bdev_name of bdevs) {
    await target.call('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name } });
  }
  const traddr = join(target.folder, name);
  mkdirSync(traddr, { recursive: true });
  const listen_address = { trtype: 'VFIOUSER', traddr };
  await target.call('nvmf_subsystem_add_listener', { nqn, listen_address });
  return { nqn, socket: join(traddr, 'cntrl') };
}
