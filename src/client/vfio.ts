/**
 * The client side of vfio-user: what a VMM does. For benches, tests and tools, against this project's server or another's.
 *
 * Requests are pipelined: replies find their request by message id. Lives on the event loop of the thread that made it.
 */
import { constants } from 'node:os';
import { getSystemErrorName } from 'node:util';
import { native } from '../native/index.ts';
import {
  DEFAULT_MAX_DATA_XFER_SIZE,
  DEFAULT_MAX_MSG_FDS,
  DeviceInfo,
  DmaAccess,
  DmaMap,
  DmaMapFlag,
  DmaUnmap,
  DmaUnmapFlag,
  HeaderFlag,
  IrqInfo,
  IrqSet,
  IrqSetAction,
  IrqSetData,
  REGION_CAP_SPARSE_MMAP,
  RegionAccess,
  RegionCap,
  RegionInfo,
  RegionInfoFlag,
  RegionWriteEntry,
  RegionWriteMulti,
  SparseMmapArea,
  SparseMmapCap,
  VersionPayload,
  VFIO_USER_MAJOR,
  VFIO_USER_MINOR,
  VfioUserCommand,
} from '../spec/vfio-user.ts';
import type { Fields, Struct, StructValues } from '../util/struct.ts';
import {
  encodeCommand,
  encodeError,
  encodeReply,
  isReply,
  type Message,
  wantsReply,
} from '../vfio-user/codec.ts';
import { Connection, closeFds } from '../vfio-user/transport.ts';

/** The server's error reply to a command. */
export class VfioUserError extends Error {
  override readonly name = 'VfioUserError';
  readonly command: number;
  /** Positive; 0 if the server did not say. */
  readonly errno: number;
  /** As 'EINVAL'. */
  readonly code: string;

  constructor(command: number, errno: number) {
    const code = errno === 0 ? 'UNKNOWN' : getSystemErrorName(-errno);
    super(`vfio-user command ${command}: ${code}`);
    this.command = command;
    this.errno = errno;
    this.code = code;
  }
}

export interface ServerVersion {
  readonly major: number;
  readonly minor: number;
  /** As the server sent them; empty if it sent none. */
  readonly capabilities: Readonly<Record<string, unknown>>;
}

export interface VersionOptions {
  readonly minor?: number;
  /** null: no JSON at all, as SPDK's host. */
  readonly capabilities?: Readonly<Record<string, unknown>> | null;
}

export interface ClientDmaRegion {
  readonly iova: number;
  readonly size: number;
  /** Stays the caller's; must stay open until the reply. */
  readonly fd?: number;
  readonly offset?: number;
  /** What the device may do. Both, by default. */
  readonly readable?: boolean;
  readonly writable?: boolean;
}

export interface ClientRegionInfo {
  readonly flags: number;
  readonly size: number;
  /** Of the region in the file of `fd`. */
  readonly offset: number;
  /** Mappable parts; empty without the capability, which with an `fd` means all of it. */
  readonly areas: readonly { readonly offset: number; readonly size: number }[];
  /** The caller's to close. */
  readonly fd: number | undefined;
}

/** Memory that this side keeps to itself, and that the server reaches by messages. */
export interface ServedMemory {
  /** The bytes there, to be read or written; undefined if there are none. */
  at(iova: number, count: number): Uint8Array | undefined;
}

interface Pending {
  readonly command: number;
  resolve(reply: Message): void;
  reject(error: Error): void;
}

const MAX_REPLY_PAYLOAD = RegionAccess.size + DEFAULT_MAX_DATA_XFER_SIZE;
const DEFAULT_CAPABILITIES = {
  max_msg_fds: 8,
  max_data_xfer_size: DEFAULT_MAX_DATA_XFER_SIZE,
  write_multiple: true,
};
const MAX_MESSAGE_ID = 0xffff;
const NO_PAYLOAD = new Uint8Array(0);
const C = VfioUserCommand;

export class VfioClient {
  /** Resolves with the reason when the connection is closed. */
  readonly closed: Promise<string>;
  readonly #connection: Connection;
  readonly #pending = new Map<number, Pending>();
  #nextId = 0;
  /** Absent: messages that ask for memory are refused. */
  memory: ServedMemory | undefined;
  /** Told of each message that asks for memory, and may answer it in place of this client: true then. */
  onDma: ((message: Message) => boolean) | undefined;
  /** Most descriptors the server takes in one message. */
  #maxMsgFds = DEFAULT_MAX_MSG_FDS;

  /** Connects to a server's socket; `version` is to be the first request. Throws ENOENT, ECONNREFUSED, … */
  static connect(path: string): VfioClient {
    return new VfioClient(native.socketConnect(path));
  }

  /** Takes a connected socket and owns it. */
  constructor(fd: number) {
    let resolveClosed!: (reason: string) => void;
    this.closed = new Promise((resolve) => {
      resolveClosed = resolve;
    });
    this.#connection = new Connection(fd, MAX_REPLY_PAYLOAD, {
      message: (message) => this.#receive(message),
      malformed: (frame) => this.#connection.close(frame.reason),
      closed: (reason) => {
        for (const { reject } of this.#pending.values()) reject(new Error(reason));
        this.#pending.clear();
        resolveClosed(reason);
      },
    });
  }

  /** Closes the connection: requests without a reply are rejected. */
  close(): void {
    this.#connection.close('closed by this side');
  }

  /**
   * Sends a command and waits for its reply, whose descriptors are the caller's. Rejects with a VfioUserError if the server refuses, with
   * an Error if the connection ends. `fds` must stay open until then.
   */
  request(command: number, payload: Uint8Array, fds: readonly number[] = []): Promise<Message> {
    if (this.#connection.closed) return Promise.reject(new Error('the connection is closed'));
    if (this.#pending.size >= MAX_MESSAGE_ID) {
      return Promise.reject(new Error('too many requests wait for a reply'));
    }
    return new Promise((resolve, reject) => {
      const id = this.#allocateId();
      this.#pending.set(id, { command, resolve, reject });
      this.#connection.send(encodeCommand(id, command, payload), fds);
    });
  }

  /** Sends a command that asks for no reply. */
  post(command: number, payload: Uint8Array, fds: readonly number[] = []): void {
    const id = this.#allocateId();
    this.#connection.send(encodeCommand(id, command, payload, HeaderFlag.NO_REPLY), fds);
  }

  /** Sends bytes as they are. A reply to them finds no request and is dropped. */
  sendRaw(data: Uint8Array, fds: readonly number[] = []): void {
    this.#connection.send(data, fds);
  }

  /** Agrees on a version. The first request of a connection. */
  async version(options: VersionOptions = {}): Promise<ServerVersion> {
    const { minor = VFIO_USER_MINOR, capabilities = DEFAULT_CAPABILITIES } = options;
    const json = capabilities === null ? '' : `${JSON.stringify({ capabilities })}\0`;
    const text = new TextEncoder().encode(json);
    const payload = concat(VersionPayload.encode({ major: VFIO_USER_MAJOR, minor }), text);
    const reply = await this.#ask(C.VERSION, payload);
    const version = readReply(reply, VersionPayload);
    const answer = new TextDecoder().decode(reply.payload.subarray(VersionPayload.size));
    const end = answer.indexOf('\0');
    const parsed = answer === '' ? {} : JSON.parse(end < 0 ? answer : answer.slice(0, end));
    const agreed: Record<string, unknown> = parsed.capabilities ?? {};
    this.#maxMsgFds = Number(agreed.max_msg_fds ?? DEFAULT_MAX_MSG_FDS);
    return { ...version, capabilities: agreed };
  }

  async dmaMap(region: ClientDmaRegion): Promise<void> {
    const { iova, size, fd, offset = 0, readable = true, writable = true } = region;
    const flags = (readable ? DmaMapFlag.READ : 0) | (writable ? DmaMapFlag.WRITE : 0);
    const payload = DmaMap.encode({ argsz: DmaMap.size, flags, offset, address: iova, size });
    await this.#ask(C.DMA_MAP, payload, fd === undefined ? [] : [fd]);
  }

  /** Unmaps every region in a range, which must cut none. Resolves with the bytes of those there were. */
  dmaUnmap(iova: number, size: number): Promise<number> {
    return this.#unmap({ flags: 0, address: iova, size });
  }

  /** The same for all regions. */
  dmaUnmapAll(): Promise<number> {
    return this.#unmap({ flags: DmaUnmapFlag.ALL });
  }

  async #unmap(range: Partial<StructValues<typeof DmaUnmap.fields>>): Promise<number> {
    const payload = DmaUnmap.encode({ argsz: DmaUnmap.size, ...range });
    return readReply(await this.#ask(C.DMA_UNMAP, payload), DmaUnmap).size;
  }

  async getInfo(): Promise<{ flags: number; numRegions: number; numIrqs: number }> {
    const reply = await this.#ask(C.DEVICE_GET_INFO, DeviceInfo.encode({ argsz: DeviceInfo.size }));
    return readReply(reply, DeviceInfo);
  }

  /** Asks, and asks again with more room if the reply says it needs more. */
  async regionInfo(index: number): Promise<ClientRegionInfo> {
    for (let argsz = RegionInfo.size; ; ) {
      const reply = await this.request(
        C.DEVICE_GET_REGION_INFO,
        RegionInfo.encode({ argsz, index }),
      );
      try {
        const info = readReply(reply, RegionInfo);
        if (info.argsz <= argsz) {
          const { flags, size, offset } = info;
          const areas = flags & RegionInfoFlag.CAPS ? parseAreas(reply, info.capOffset) : [];
          return { flags, size, offset, areas, fd: reply.fds.shift() };
        }
        if (info.argsz > MAX_REPLY_PAYLOAD) throw new Error(`a region info of ${info.argsz} bytes`);
        argsz = info.argsz;
      } finally {
        closeFds(reply.fds);
      }
    }
  }

  async irqInfo(index: number): Promise<{ flags: number; count: number }> {
    const payload = IrqInfo.encode({ argsz: IrqInfo.size, index });
    return readReply(await this.#ask(C.DEVICE_GET_IRQ_INFO, payload), IrqInfo);
  }

  /** SET_IRQS as it is. `flags` is one of IrqSetData and one of IrqSetAction; `data` the bytes of BOOL. */
  async setIrqs(
    index: number,
    flags: number,
    start: number,
    count: number,
    fds: readonly number[] = [],
    data: Uint8Array = NO_PAYLOAD,
  ): Promise<void> {
    const argsz = IrqSet.size + data.length;
    const head = IrqSet.encode({ argsz, flags, index, start, count });
    await this.#ask(C.DEVICE_SET_IRQS, concat(head, data), fds);
  }

  /** Connects eventfds to vectors start, start + 1, …, in as many messages as the server needs. */
  async connectIrqs(index: number, start: number, fds: readonly number[]): Promise<void> {
    const flags = IrqSetData.EVENTFD | IrqSetAction.TRIGGER;
    const step = Math.max(1, this.#maxMsgFds);
    for (let i = 0; i < fds.length; i += step) {
      const part = fds.slice(i, i + step);
      await this.setIrqs(index, flags, start + i, part.length, part);
    }
  }

  /** Disconnects all vectors of an index. */
  disableIrqs(index: number): Promise<void> {
    return this.setIrqs(index, IrqSetData.NONE | IrqSetAction.TRIGGER, 0, 0);
  }

  /** Has the server signal vectors. */
  triggerIrqs(index: number, start: number, count: number): Promise<void> {
    return this.setIrqs(index, IrqSetData.NONE | IrqSetAction.TRIGGER, start, count);
  }

  async regionRead(region: number, offset: number, count: number): Promise<Uint8Array> {
    const payload = RegionAccess.encode({ offset, region, count });
    const reply = await this.#ask(C.REGION_READ, payload);
    const done = readReply(reply, RegionAccess).count;
    const data = reply.payload.subarray(RegionAccess.size);
    if (done !== count || data.length !== count) {
      throw new Error(`a read of ${count} bytes gave ${data.length}`);
    }
    return data;
  }

  async regionWrite(region: number, offset: number, data: Uint8Array): Promise<void> {
    await this.#ask(C.REGION_WRITE, encodeWrite(region, offset, data));
  }

  /** A write without a reply; errors go unseen. */
  regionWritePosted(region: number, offset: number, data: Uint8Array): void {
    this.post(C.REGION_WRITE, encodeWrite(region, offset, data));
  }

  /** Several writes of at most 8 bytes each. Gives how many were done. Only if the server agreed to write_multiple. */
  async regionWriteMulti(
    writes: readonly { region: number; offset: number; data: Uint8Array }[],
  ): Promise<number> {
    const entries = writes.map(({ region, offset, data }) =>
      RegionWriteEntry.encode({ offset, region, count: data.length, data }),
    );
    const payload = concat(RegionWriteMulti.encode({ count: writes.length }), ...entries);
    return readReply(await this.#ask(C.REGION_WRITE_MULTI, payload), RegionWriteMulti).count;
  }

  async reset(): Promise<void> {
    await this.#ask(C.DEVICE_RESET, NO_PAYLOAD);
  }

  /** A request whose reply has no use for descriptors. */
  async #ask(command: number, payload: Uint8Array, fds?: readonly number[]): Promise<Message> {
    const reply = await this.request(command, payload, fds);
    closeFds(reply.fds.splice(0));
    return reply;
  }

  /** Answers a message that asks for memory. */
  answerDma({ header, payload, view }: Message): void {
    if (!wantsReply(header)) return;
    const { memory } = this;
    const isRead = header.command === C.DMA_READ;
    if (memory === undefined || (!isRead && header.command !== C.DMA_WRITE)) {
      this.#connection.send(encodeError(header, constants.errno.ENOTSUP));
      return;
    }
    if (payload.length < DmaAccess.size) {
      this.#connection.send(encodeError(header, constants.errno.EINVAL));
      return;
    }
    const { address, count } = DmaAccess.read(view);
    const bytes = memory.at(address, count);
    const data = payload.subarray(DmaAccess.size);
    if (bytes === undefined || (!isRead && data.length !== count)) {
      this.#connection.send(encodeError(header, constants.errno.EFAULT));
      return;
    }
    const head = DmaAccess.encode({ address, count });
    if (!isRead) bytes.set(data);
    this.#connection.send(encodeReply(header, isRead ? concat(head, bytes) : head));
  }

  /** An id that no request waits under; there is one, since `request` keeps it so. */
  #allocateId(): number {
    while (this.#pending.has(this.#nextId)) this.#nextId = (this.#nextId + 1) & MAX_MESSAGE_ID;
    const id = this.#nextId;
    this.#nextId = (id + 1) & MAX_MESSAGE_ID;
    return id;
  }

  #receive(message: Message): void {
    const { header, fds } = message;
    if (!isReply(header)) {
      closeFds(fds);
      if (this.onDma?.(message) !== true) this.answerDma(message);
      return;
    }
    const pending = this.#pending.get(header.messageId);
    if (pending === undefined || pending.command !== header.command) {
      closeFds(fds);
      return;
    }
    this.#pending.delete(header.messageId);
    if ((header.flags & HeaderFlag.ERROR) === 0) {
      pending.resolve(message);
    } else {
      closeFds(fds);
      pending.reject(new VfioUserError(header.command, header.error));
    }
  }
}

function encodeWrite(region: number, offset: number, data: Uint8Array): Uint8Array {
  return concat(RegionAccess.encode({ offset, region, count: data.length }), data);
}

function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat(parts);
}

function readReply<F extends Fields>(reply: Message, struct: Struct<F>): StructValues<F> {
  if (reply.payload.length < struct.size) {
    throw new Error(`a reply of ${reply.payload.length} bytes, ${struct.name} has ${struct.size}`);
  }
  return struct.read(reply.view);
}

/** The areas of a sparse mmap capability. */
function parseAreas(reply: Message, capOffset: number): { offset: number; size: number }[] {
  const { view, payload } = reply;
  // Capabilities are chained by offsets that only grow here, so a chain always ends.
  for (let at = capOffset; at >= RegionInfo.size && at + RegionCap.size <= payload.length; ) {
    const { id, next } = RegionCap.read(view, at);
    if (id === REGION_CAP_SPARSE_MMAP && at + SparseMmapCap.size <= payload.length) {
      const { nrAreas } = SparseMmapCap.read(view, at);
      const first = at + SparseMmapCap.size;
      if (first + nrAreas * SparseMmapArea.size > payload.length) break;
      return Array.from({ length: nrAreas }, (_, i) =>
        SparseMmapArea.read(view, first + i * SparseMmapArea.size),
      );
    }
    if (next <= at) break;
    at = next;
  }
  return [];
}
