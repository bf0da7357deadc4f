/**
 * A drive as scripts see it: connect, identify, read, write. For tests, tools and experiments, against any vfio-user NVMe controller. One
 * I/O queue pair, MSI-X interrupts; a read or write of any length becomes as many commands as it takes. Lives on the event loop.
 */

import { Cns, GetLogPage, Identify } from '../spec/admin.ts';
import { IDENTIFY_SIZE, type IdentifyController, Vwc } from '../spec/identify.ts';
import { Lid, SmartLog } from '../spec/logs.ts';
import { Flush, Read, Write } from '../spec/nvm.ts';
import { NSID_ALL } from '../spec/nvme.ts';
import type { StructValues } from '../util/struct.ts';
import { type CommandFields, NvmeClient, succeeded } from './nvme.ts';
import type { QueuePair } from './queue-pair.ts';
import { type Data, type Outcome, Transfers } from './transfers.ts';

export interface DriveOptions {
  /** Map the doorbells, if the server offers it (default); else each is a message. */
  readonly mapDoorbells?: boolean;
  /** Hangs up: what waits for the server rejects. A server that has a client does not answer another, so it is wise to have one. */
  readonly signal?: AbortSignal;
}

/** What Identify Controller says, in words; all of it is in `fields`, under the specification's names. */
export interface ControllerInfo {
  readonly model: string;
  readonly serial: string;
  readonly firmware: string;
  /** NQN of the subsystem. */
  readonly nqn: string;
  /** There is a write cache: without a flush, or FUA, a write is not durable yet. */
  readonly volatileWriteCache: boolean;
  readonly fields: StructValues<(typeof IdentifyController)['fields']>;
}

export interface WriteOptions {
  /** Force Unit Access: durable when it completes. */
  readonly fua?: boolean;
}

/** Commands in flight: buffers, and entries of the queues. */
const BUFFERS = 8;
const QUEUE_DEPTH = 32;
const QID = 1;
/** Of one command, if the controller takes as much. Bytes. */
const MAX_COMMAND_BYTES = 1024 * 1024;
/** For queues, and the data of admin commands. */
const OTHER_MEMORY = 512 * 1024;
const PAGE = 4096;
const NSIDS_A_LIST = IDENTIFY_SIZE / 4;
const MAX_BLOCKS_A_COMMAND = 0x1_0000;

/** Connects to the controller at a socket, as its only client, and enables it. */
export function connect(socket: string, options: DriveOptions = {}): Promise<NvmeDrive> {
  return NvmeDrive.connect(socket, options);
}

export class NvmeDrive {
  /** What is below: registers, queues, and the vfio-user connection. */
  readonly client: NvmeClient;
  readonly #pair: QueuePair;
  readonly #transfers: Transfers;

  /** Rejects with what the system says if nobody listens, a VfioUserError or NvmeError if the server refuses, an Error if it hangs up. */
  static async connect(socket: string, options: DriveOptions): Promise<NvmeDrive> {
    const client = await NvmeClient.connect(socket, {
      ...options,
      memoryBytes: OTHER_MEMORY + Transfers.memoryFor(BUFFERS, MAX_COMMAND_BYTES),
      interrupts: true,
    });
    try {
      const { mdts } = await client.identifyController();
      // NVMe Base 2.0 figure 275: a power of two in units of the smallest page; 0: no limit.
      const limit = mdts === 0 ? MAX_COMMAND_BYTES : PAGE * 2 ** mdts;
      const transfers = new Transfers(client, BUFFERS, Math.min(limit, MAX_COMMAND_BYTES));
      const depth = Math.min(QUEUE_DEPTH, client.maxQueueEntries);
      return new NvmeDrive(client, await client.createQueuePair(QID, depth), transfers);
    } catch (error) {
      client.close();
      throw error;
    }
  }

  private constructor(client: NvmeClient, pair: QueuePair, transfers: Transfers) {
    this.client = client;
    this.#pair = pair;
    this.#transfers = transfers;
  }

  /** Resolves with the reason when the connection is over. */
  get closed(): Promise<string> {
    return this.client.vfio.closed;
  }

  /** Most that one command moves. Bytes. `read` and `write` take more. */
  get maxTransferBytes(): number {
    return this.#transfers.maxBytes;
  }

  async identify(): Promise<ControllerInfo> {
    const fields = await this.client.identifyController();
    return {
      model: text(fields.mn),
      serial: text(fields.sn),
      firmware: text(fields.fr),
      nqn: text(fields.subnqn),
      volatileWriteCache: (fields.vwc & Vwc.mask.present) !== 0,
      fields,
    };
  }

  /** The active NSIDs, in ascending order. */
  async namespaces(): Promise<number[]> {
    const nsids: number[] = [];
    for (;;) {
      const last = nsids.at(-1) ?? 0;
      const command = Identify.fields({ nsid: last, cns: Cns.ACTIVE_NAMESPACES });
      const { data } = await this.admin(command, { read: IDENTIFY_SIZE });
      const list = new Uint32Array(data.buffer, data.byteOffset, NSIDS_A_LIST);
      const end = list.indexOf(0);
      const found = [...(end < 0 ? list : list.subarray(0, end))];
      // A list that does not ascend would never end.
      if (found.some((nsid, i) => nsid <= (found[i - 1] ?? last))) {
        throw new Error('the list of active namespaces is not in ascending order');
      }
      nsids.push(...found);
      if (end >= 0) {
        return nsids;
      }
    }
  }

  /** A namespace to read and write. Default: the first one. Rejects with an NvmeError if there is no such NSID. */
  async namespace(nsid?: number): Promise<NvmeNamespace> {
    const chosen = nsid ?? (await this.namespaces())[0];
    if (chosen === undefined) {
      throw new Error('the controller has no namespace');
    }
    const { lbas, lbaBytes, metadataBytes } = await this.client.namespaceGeometry(chosen);
    if (lbas === 0) {
      throw new Error(`namespace ${chosen} is not active`);
    }
    if (metadataBytes > 0) {
      throw new Error(`namespace ${chosen} has ${metadataBytes} bytes of metadata a block`);
    }
    return new NvmeNamespace(this, chosen, lbas, lbaBytes);
  }

  /** The SMART / Health log, under the specification's names. */
  async smart(): Promise<StructValues<(typeof SmartLog)['fields']>> {
    const numdLZ = SmartLog.size / 4 - 1;
    const command = GetLogPage.fields({ nsid: NSID_ALL, lid: Lid.SMART, numdLZ });
    const { data } = await this.admin(command, { read: SmartLog.size });
    return SmartLog.read(new DataView(data.buffer, data.byteOffset));
  }

  /** Any admin command. `fields`: of the submission queue entry, but for CID and PRPs. Rejects with an NvmeError if it fails. */
  admin(fields: CommandFields, data?: Data): Promise<Outcome> {
    return this.#execute(this.client.admin, fields, data);
  }

  /** The same of an I/O command. */
  io(fields: CommandFields, data?: Data): Promise<Outcome> {
    return this.#execute(this.#pair, fields, data);
  }

  async #execute(pair: QueuePair, fields: CommandFields, data?: Data): Promise<Outcome> {
    const outcome = await this.#transfers.execute(pair, fields, data);
    succeeded(outcome);
    return outcome;
  }

  /** Hangs up. What is in flight rejects, and may or may not have happened. */
  close(): void {
    this.client.close();
  }
}

export class NvmeNamespace {
  readonly nsid: number;
  /** Logical blocks. */
  readonly blocks: number;
  /** Bytes of one. */
  readonly blockSize: number;
  readonly #drive: NvmeDrive;

  constructor(drive: NvmeDrive, nsid: number, blocks: number, blockSize: number) {
    this.#drive = drive;
    this.nsid = nsid;
    this.blocks = blocks;
    this.blockSize = blockSize;
  }

  get bytes(): number {
    return this.blocks * this.blockSize;
  }

  /** Rejects with the NvmeError of the first command that failed, once all have ended. */
  async read(lba: number, blocks = 1): Promise<Uint8Array> {
    const data = new Uint8Array(checkCount(blocks, 'blocks') * this.blockSize);
    await this.#eachCommand(lba, blocks, async (range, at, length) => {
      const outcome = await this.#drive.io(Read.fields(range), { read: length });
      data.set(outcome.data, at);
    });
    return data;
  }

  /** The same. After an error some of the blocks may be written. `data`: whole blocks. */
  async write(lba: number, data: Uint8Array, { fua = false }: WriteOptions = {}): Promise<void> {
    if (data.length % this.blockSize !== 0) {
      throw new RangeError(`${data.length} bytes are not whole blocks of ${this.blockSize}`);
    }
    await this.#eachCommand(lba, data.length / this.blockSize, async (range, at, length) => {
      const write = data.subarray(at, at + length);
      await this.#drive.io(Write.fields({ ...range, fua }), { write });
    });
  }

  /** What was written before is durable when this resolves. */
  async flush(): Promise<void> {
    await this.#drive.io(Flush.fields({ nsid: this.nsid }));
  }

  /** Splits a range of blocks into commands, and runs them all. `at`, `length`: in bytes, from the beginning of the range. */
  async #eachCommand(
    lba: number,
    blocks: number,
    run: (
      range: { nsid: number; slba: number; nlbZ: number },
      at: number,
      length: number,
    ) => Promise<void>,
  ): Promise<void> {
    checkCount(lba, 'lba');
    const most = Math.min(
      Math.floor(this.#drive.maxTransferBytes / this.blockSize),
      MAX_BLOCKS_A_COMMAND,
    );
    if (most === 0) {
      throw new Error(`a command cannot move a block of ${this.blockSize} bytes`);
    }
    const commands: Promise<void>[] = [];
    for (let done = 0; done < blocks; done += most) {
      const count = Math.min(most, blocks - done);
      const range = { nsid: this.nsid, slba: lba + done, nlbZ: count - 1 };
      commands.push(run(range, done * this.blockSize, count * this.blockSize));
    }
    for (const outcome of await Promise.allSettled(commands)) {
      if (outcome.status === 'rejected') {
        throw outcome.reason;
      }
    }
  }
}

function checkCount(value: number, name: string): number {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new RangeError(`${name} is ${value}, not a whole number from 0`);
  }
  return value;
}

/** Without the blanks, or zeros, that fill it up. */
function text(field: Uint8Array): string {
  const decoded = new TextDecoder('latin1').decode(field);
  const end = decoded.indexOf('\0');
  return (end < 0 ? decoded : decoded.slice(0, end)).trimEnd();
}
