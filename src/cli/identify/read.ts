/** Reads all that a vfio-user NVMe controller says about itself, as its only client, and leaves it disabled. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { NvmeClient, NvmeError } from '../../client/nvme.ts';
import { Cns, GetLogPage, Identify } from '../../spec/admin.ts';
import {
  IDENTIFY_SIZE,
  type IdentifyController,
  type IdentifyNamespace,
  NamespaceDescriptor,
} from '../../spec/identify.ts';
import { Lid, SmartLog } from '../../spec/logs.ts';
import { NSID_ALL } from '../../spec/nvme.ts';
import { PciHeader } from '../../spec/pci.ts';
import { Register } from '../../spec/registers.ts';
import { PciIrq, PciRegion } from '../../spec/vfio-user.ts';
import { describeError, errnoOf } from '../../util/errors.ts';
import type { StructValues } from '../../util/struct.ts';
import { CliError, Exit } from '../output.ts';

export interface NamespaceReport {
  readonly nsid: number;
  readonly identify: StructValues<(typeof IdentifyNamespace)['fields']>;
  /** Type and value, in the controller's order. */
  readonly descriptors: readonly { readonly nidt: number; readonly value: Uint8Array }[];
}

export interface IdentifyReport {
  readonly socket: string;
  readonly pci: StructValues<(typeof PciHeader)['fields']>;
  readonly msixVectors: number;
  /** As they were before this client enabled the controller. */
  readonly registers: ReadonlyMap<RegisterName, bigint>;
  readonly controller: StructValues<(typeof IdentifyController)['fields']>;
  /** Active NSIDs. */
  readonly nsids: readonly number[];
  readonly namespaces: readonly NamespaceReport[];
  /** Undefined if the controller has no such log page. */
  readonly smart: StructValues<(typeof SmartLog)['fields']> | undefined;
}

export type RegisterName = keyof (typeof Register)['fields'];

export interface ReadOptions {
  /** Which namespaces to look at: these, or all active ones. */
  readonly namespaces: readonly number[] | 'all';
  readonly timeoutMs: number;
}

const MEMORY_BYTES = 256 * 1024;
const NSIDS_A_LIST = IDENTIFY_SIZE / 4;
/** More are not believed. */
const MAX_NAMESPACES = 65_536;

/** Rejects with a {@link CliError}: nobody there, someone else connected, no answer, or not an NVMe controller. */
export async function readIdentify(socket: string, options: ReadOptions): Promise<IdentifyReport> {
  refuseIfConnected(socket);
  const signal = AbortSignal.timeout(options.timeoutMs);
  let client: NvmeClient | undefined;
  try {
    client = await NvmeClient.connect(socket, {
      memoryBytes: MEMORY_BYTES,
      mapDoorbells: false,
      enable: false,
      signal,
    });
    const report = await readAll(client, socket, options.namespaces);
    await client.disable();
    return report;
  } catch (error) {
    throw explain(error, socket, signal.aborted ? options.timeoutMs / 1000 : undefined);
  } finally {
    client?.close();
  }
}

/**
 * A server takes one client, and one that waits for its turn could get in before a VM that reconnects. So the kernel is asked first: it
 * lists connected sockets under the path that their server listens on.
 */
export function refuseIfConnected(socket: string): void {
  const CONNECTED = '03';
  const paths = [socket, resolve(socket)];
  const connected = readFileSync('/proc/net/unix', 'utf8')
    .split('\n')
    // Num RefCount Protocol Flags Type St Inode Path
    .map((line) => /^\S+ \S+ \S+ \S+ \S+ (\S+)\s+\S+ (.*)$/.exec(line))
    .some((match) => match !== null && match[1] === CONNECTED && paths.includes(match[2]));
  if (connected) {
    throw busy(socket);
  }
}

const busy = (socket: string) =>
  new CliError(
    `${socket} is busy: a client is connected, probably a VM, and a socket serves one at a time; ask the target instead (doorbell rpc), or try again when the VM is off`,
    Exit.UNREACHABLE,
  );

function explain(error: unknown, socket: string, timedOutAfter: number | undefined): CliError {
  if (error instanceof CliError) {
    return error;
  }
  if (timedOutAfter !== undefined) {
    return new CliError(
      `no answer from ${socket} within ${timedOutAfter} s: another client may be connected (a socket serves one at a time), or its server hangs`,
      Exit.UNREACHABLE,
    );
  }
  if (error instanceof NvmeError) {
    return new CliError(`${socket}: the controller refused a command: ${error.message}`);
  }
  if (errnoOf(error) !== undefined) {
    return new CliError(
      `cannot connect to ${socket}: ${describeError(error)}; it has to be the vfio-user socket that the VM gets, as /run/vm0/cntrl`,
      Exit.UNREACHABLE,
    );
  }
  return new CliError(`${socket} does not answer as an NVMe controller: ${describeError(error)}`);
}

async function readAll(
  client: NvmeClient,
  socket: string,
  wanted: readonly number[] | 'all',
): Promise<IdentifyReport> {
  const { vfio } = client;
  const config = await vfio.regionRead(PciRegion.CONFIG, 0, PciHeader.size);
  const pci = PciHeader.read(viewOf(config));
  const { count } = await vfio.irqInfo(PciIrq.MSIX);
  const registers = await readRegisters(client);
  await client.enable();
  const controller = await client.identifyController();
  const nsids = await activeNamespaces(client);
  const namespaces: NamespaceReport[] = [];
  for (const nsid of wanted === 'all' ? nsids : wanted) {
    if (!nsids.includes(nsid)) {
      const have = nsids.length === 0 ? 'it has none' : `it has ${nsids.join(', ')}`;
      throw new CliError(`${socket} has no active namespace ${nsid}: ${have}`);
    }
    namespaces.push(await readNamespace(client, nsid));
  }
  const smart = await optional(
    client.adminRead(
      GetLogPage.fields({ nsid: NSID_ALL, lid: Lid.SMART, numdLZ: SmartLog.size / 4 - 1 }),
      SmartLog.size,
    ),
  );
  return {
    socket,
    pci,
    msixVectors: count,
    registers,
    controller,
    nsids,
    namespaces,
    smart: smart && SmartLog.read(viewOf(smart)),
  };
}

const viewOf = (data: Uint8Array) => new DataView(data.buffer, data.byteOffset, data.length);

/** What a controller may not have. */
async function optional<T>(command: Promise<T>): Promise<T | undefined> {
  try {
    return await command;
  } catch (error) {
    if (error instanceof NvmeError) {
      return undefined;
    }
    throw error;
  }
}

async function readRegisters(client: NvmeClient): Promise<Map<RegisterName, bigint>> {
  const registers = new Map<RegisterName, bigint>();
  for (const [name, { offset, width }] of Object.entries(Register.fields)) {
    let value = BigInt(await client.readRegister(offset));
    if (width === 8) {
      value |= BigInt(await client.readRegister(offset + 4)) << 32n;
    }
    registers.set(name as RegisterName, value);
  }
  return registers;
}

/** CNS 02h, a list of 1024 after another. */
async function activeNamespaces(client: NvmeClient): Promise<number[]> {
  const nsids: number[] = [];
  for (let last = 0; nsids.length < MAX_NAMESPACES; last = nsids[nsids.length - 1]) {
    const data = await client.adminRead(
      Identify.fields({ nsid: last, cns: Cns.ACTIVE_NAMESPACES }),
      IDENTIFY_SIZE,
    );
    const view = viewOf(data);
    const list = Array.from({ length: NSIDS_A_LIST }, (_, i) => view.getUint32(4 * i, true));
    const end = list.findIndex((nsid, i) => nsid <= (i === 0 ? last : list[i - 1]));
    nsids.push(...(end < 0 ? list : list.slice(0, end)));
    if (end >= 0) {
      break;
    }
  }
  return nsids;
}

async function readNamespace(client: NvmeClient, nsid: number): Promise<NamespaceReport> {
  const identify = await client.identifyNamespace(nsid);
  const data = await optional(
    client.adminRead(Identify.fields({ nsid, cns: Cns.NAMESPACE_DESCRIPTORS }), IDENTIFY_SIZE),
  );
  return { nsid, identify, descriptors: data === undefined ? [] : parseDescriptors(data) };
}

function parseDescriptors(data: Uint8Array): NamespaceReport['descriptors'] {
  const descriptors: { nidt: number; value: Uint8Array }[] = [];
  const view = viewOf(data);
  for (let at = 0; at + NamespaceDescriptor.size <= data.length; ) {
    const { nidt, nidl } = NamespaceDescriptor.read(view, at);
    const start = at + NamespaceDescriptor.size;
    if (nidl === 0 || start + nidl > data.length) {
      break;
    }
    descriptors.push({ nidt, value: data.subarray(start, start + nidl) });
    at = start + nidl;
  }
  return descriptors;
}
