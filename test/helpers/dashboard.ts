/** A target as a process, with the dashboard of it open in a browser; and a host that does I/O on its disks. */
import type { Browser, BrowserContextOptions } from 'playwright-core';
import t, { type Test as TapTest } from 'tap';
import { NvmeClient } from '../../src/client/nvme.ts';
import type { QueuePair } from '../../src/client/queue-pair.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import type { Snapshot } from '../../src/target/snapshot.ts';
import { becomes, findBrowser, type OpenPage, openPage, startBrowser } from './browser.ts';
import { TargetProcess } from './target-process.ts';

/** Longer than any wait in a page, so that what it waited for is told. */
const TIMEOUT_MS = 300_000;

export interface Dashboard extends OpenPage {
  readonly target: TargetProcess;
  readonly url: string;
}

/** Runs the tests in one browser; skips them, or fails, if there is none. */
export function withBrowser(tests: (browser: Browser) => void): void {
  const found = findBrowser();
  if ('unavailable' in found) {
    if (process.env.CI === 'true') {
      t.fail(found.unavailable);
    } else {
      t.plan(0, found.unavailable);
    }
    return;
  }
  t.setTimeout(TIMEOUT_MS);
  void startBrowser(found.program).then((browser) => {
    t.teardown(() => browser.close());
    tests(browser);
    t.end();
  }, t.threw);
}

/** Starts a target, lets `prepare` configure it, and opens its dashboard. */
export async function openDashboard(
  t: TapTest,
  browser: Browser,
  prepare: (target: TargetProcess) => Promise<unknown> = async () => {},
  options: BrowserContextOptions & { readonly targetOptions?: readonly string[] } = {},
): Promise<Dashboard> {
  const { targetOptions = [], ...context } = options;
  const target = new TargetProcess(t);
  await target.start('--http', '127.0.0.1:0', ...targetOptions);
  await prepare(target);
  const url = await target.httpUrl();
  const open = await openPage(t, browser, url, context);
  return { ...open, target, url };
}

/** Waits until the page shows figures of the target. */
export async function live({ page }: Dashboard): Promise<void> {
  await becomes(
    page,
    'the page is live',
    `document.querySelector('#connection').dataset.state === 'live'`,
  );
  await becomes(
    page,
    'figures are shown',
    `document.querySelector('#tile-iops').textContent !== ''`,
  );
}

export async function snapshotOf(target: TargetProcess): Promise<Snapshot> {
  return (await target.call('doorbell_get_snapshot')) as Snapshot;
}

/** A host that is connected to a socket, with one queue. */
export class Host {
  readonly client: NvmeClient;
  readonly #pair: QueuePair;
  readonly #iova: number;

  static async connect(t: TapTest, socket: string): Promise<Host> {
    const client = await NvmeClient.connect(socket);
    t.teardown(() => client.close());
    return new Host(client, await client.createQueuePair(1, 64));
  }

  private constructor(client: NvmeClient, pair: QueuePair) {
    this.client = client;
    this.#pair = pair;
    this.#iova = client.memory.iova + client.memory.allocate(4096);
  }

  /** Bytes of the buffer that `read` fills and `write` takes. */
  get buffer(): Uint8Array {
    const offset = this.#iova - this.client.memory.iova;
    return new Uint8Array(this.client.memory.buffer, offset, 4096);
  }

  /** One command of `blocks` blocks at block `lba`. Gives the status field. */
  async #transfer(opcode: number, nsid: number, lba: number, blocks: number): Promise<number> {
    const fields = { opcode, nsid, prp1: this.#iova, cdw10: lba, cdw12: blocks - 1 };
    return (await this.#pair.execute(fields)).status;
  }

  read(nsid: number, lba: number, blocks = 1): Promise<number> {
    return this.#transfer(NvmOpcode.READ, nsid, lba, blocks);
  }

  write(nsid: number, lba: number, blocks = 1): Promise<number> {
    return this.#transfer(NvmOpcode.WRITE, nsid, lba, blocks);
  }

  /** Reads and writes until `stop` resolves; resolves with how many of each. */
  async load(nsid: number, stop: Promise<unknown>): Promise<{ reads: number; writes: number }> {
    let stopped = false;
    void stop.finally(() => {
      stopped = true;
    });
    const done = { reads: 0, writes: 0 };
    while (!stopped) {
      await Promise.all([this.read(nsid, 0), this.read(nsid, 8), this.write(nsid, 16)]);
      done.reads += 2;
      done.writes += 1;
    }
    return done;
  }
}
