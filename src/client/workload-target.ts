/** The load generator's look at its targets: what is there, and whether the load fits. */

import { Cns, Identify } from '../spec/admin.ts';
import { IDENTIFY_SIZE } from '../spec/identify.ts';
import { describeError } from '../util/errors.ts';
import { MAX_BUFFER_BYTES } from './buffers.ts';
import { NvmeClient } from './nvme.ts';
import type { WorkloadOptions } from './workload-options.ts';

export interface WorkloadNamespace {
  readonly nsid: number;
  readonly lbaBytes: number;
  readonly lbas: number;
}

export interface WorkloadController {
  readonly socket: string;
  readonly model: string;
  readonly serial: string;
  readonly firmware: string;
  readonly namespaces: readonly WorkloadNamespace[];
}

const CONNECT_TIMEOUT_MS = 10_000;

/** A target that cannot be reached, or is no NVMe controller. */
export class ConnectError extends Error {
  override readonly name = 'ConnectError';
}

/** A driver with memory for the queues. Rejects with a ConnectError, after some seconds at the latest. */
export async function connect(socket: string, options: WorkloadOptions): Promise<NvmeClient> {
  const entries = Math.max(options.queueEntries, options.depth + 1);
  const memoryBytes = 2 ** 20 + options.queuePairs * (80 * entries + 2 * 4096);
  const { signal, abort } = deadline();
  try {
    return await NvmeClient.connect(socket, { memoryBytes, signal });
  } catch (error) {
    const why = signal.aborted ? `no answer within ${CONNECT_TIMEOUT_MS / 1000} s` : '';
    throw new ConnectError(`${socket}: ${why || describeError(error)}`);
  } finally {
    clearTimeout(abort);
  }
}

/** Aborts after the time that connecting may take, unless the timer is cleared. */
function deadline(): { readonly signal: AbortSignal; readonly abort: NodeJS.Timeout } {
  const controller = new AbortController();
  const abort = setTimeout(() => controller.abort(), CONNECT_TIMEOUT_MS);
  return { signal: controller.signal, abort };
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('latin1').replaceAll('\0', ' ').trim();
}

/** What the controller is, its namespaces that are wanted, and whether it can do what is wanted. */
export async function describe(
  client: NvmeClient,
  socket: string,
  options: WorkloadOptions,
): Promise<WorkloadController> {
  const { mn, sn, fr, mdts } = await client.identifyController();
  // MDTS counts pages of CAP.MPSMIN, which is 4 KiB where this client can work (CC.MPS = 0).
  const largest = mdts === 0 ? MAX_BUFFER_BYTES : Math.min(MAX_BUFFER_BYTES, 4096 * 2 ** mdts);
  if (options.blockSize > largest) {
    throw new Error(`${socket}: ${options.blockSize} bytes are more than a command's ${largest}`);
  }
  const entries = Math.max(options.queueEntries, options.depth + 1);
  if (entries > client.maxQueueEntries) {
    const most = client.maxQueueEntries;
    throw new Error(`${socket}: a queue has ${most} entries at most, and needs ${entries}`);
  }
  const active = await activeNamespaces(client);
  const missing = options.namespaces.find((nsid) => !active.includes(nsid));
  if (missing !== undefined) {
    const there = active.length === 0 ? 'it has none' : `it has ${active.join(', ')}`;
    throw new Error(`${socket}: there is no namespace ${missing}: ${there}`);
  }
  const wanted = options.namespaces.length > 0 ? options.namespaces : active;
  if (wanted.length === 0) {
    throw new Error(`${socket}: the controller has no namespace`);
  }
  const namespaces: WorkloadNamespace[] = [];
  for (const nsid of wanted) {
    namespaces.push(await describeNamespace(client, socket, nsid, options));
  }
  return { socket, model: text(mn), serial: text(sn), firmware: text(fr), namespaces };
}

/** CNS 02h: the first 1024 of them. */
async function activeNamespaces(client: NvmeClient): Promise<number[]> {
  const fields = Identify.fields({ cns: Cns.ACTIVE_NAMESPACES });
  const list = new Uint32Array((await client.adminRead(fields, IDENTIFY_SIZE)).buffer);
  const end = list.indexOf(0);
  return [...list.subarray(0, end < 0 ? list.length : end)];
}

async function describeNamespace(
  client: NvmeClient,
  socket: string,
  nsid: number,
  { blockSize, size }: WorkloadOptions,
): Promise<WorkloadNamespace> {
  const { lbas, lbaBytes, metadataBytes } = await client.namespaceGeometry(nsid);
  const name = `${socket}: namespace ${nsid}`;
  if (metadataBytes > 0) {
    throw new Error(`${name} has metadata, which is not supported`);
  }
  if (blockSize % lbaBytes !== 0) {
    throw new Error(
      `${name} has blocks of ${lbaBytes} bytes, of which ${blockSize} is no multiple`,
    );
  }
  const bytes = lbas * lbaBytes;
  if (Math.max(size, blockSize) > bytes) {
    throw new Error(`${name} has ${bytes} bytes, fewer than ${Math.max(size, blockSize)}`);
  }
  return { nsid, lbas, lbaBytes };
}
