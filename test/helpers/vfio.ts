/** A small device, a server for it, and a client end that sends and receives messages as they are. */
import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { native } from '../../src/native/index.ts';
import { IrqInfoFlag, PciIrq, PciRegion } from '../../src/spec/vfio-user.ts';
import type { Malformed, Message } from '../../src/vfio-user/codec.ts';
import type {
  DeviceRegion,
  DmaRegion,
  IrqIndex,
  VfioUserDevice,
} from '../../src/vfio-user/device.ts';
import { VfioUserServer, type VfioUserServerOptions } from '../../src/vfio-user/server.ts';
import type { SessionEvent } from '../../src/vfio-user/session.ts';
import { Connection, closeFds } from '../../src/vfio-user/transport.ts';

export const BAR0_SIZE = 0x4000;
export const CONFIG_SIZE = 4096;
/** BAR4 can only be read, BAR5 only be written. */
export const SMALL_SIZE = 0x1000;
export const MSIX_VECTORS = 20;

/** Memory for regions; remembers every call in `calls`, and owns descriptors as a real device does. */
export class TestDevice implements VfioUserDevice {
  readonly calls: unknown[][] = [];
  readonly memory = new Map<number, Uint8Array>([
    [PciRegion.BAR0, new Uint8Array(BAR0_SIZE)],
    [PciRegion.BAR4, new Uint8Array(SMALL_SIZE).fill(0x44)],
    [PciRegion.BAR5, new Uint8Array(SMALL_SIZE)],
    [PciRegion.CONFIG, new Uint8Array(CONFIG_SIZE)],
  ]);
  readonly bar0Fd = native.memfdCreate('test-bar0', BAR0_SIZE);
  readonly regions: readonly DeviceRegion[] = [
    {
      index: PciRegion.BAR0,
      size: BAR0_SIZE,
      readable: true,
      writable: true,
      mmap: { fd: this.bar0Fd, areas: [{ offset: 0x1000, size: 0x1000 }] },
    },
    { index: PciRegion.BAR4, size: SMALL_SIZE, readable: true, writable: false },
    { index: PciRegion.BAR5, size: SMALL_SIZE, readable: false, writable: true },
    { index: PciRegion.CONFIG, size: CONFIG_SIZE, readable: true, writable: true },
  ];
  readonly irqs: readonly IrqIndex[] = [
    {
      index: PciIrq.INTX,
      count: 1,
      flags: IrqInfoFlag.EVENTFD | IrqInfoFlag.MASKABLE | IrqInfoFlag.AUTOMASKED,
    },
    { index: PciIrq.MSIX, count: MSIX_VECTORS, flags: IrqInfoFlag.EVENTFD | IrqInfoFlag.NORESIZE },
    { index: PciIrq.ERR, count: 1, flags: IrqInfoFlag.EVENTFD },
  ];
  /** What the next call that may wait waits for. */
  gate: (() => Promise<void>) | undefined;
  /** What the next call that may refuse throws. */
  failure: unknown;
  /** Descriptors by name, as 'irq 2:0' or 'dma 4096'. */
  readonly fds = new Map<string, number>();

  #enter(...call: unknown[]): Promise<void> | undefined {
    this.calls.push(call);
    const failure = this.failure;
    this.failure = undefined;
    if (failure !== undefined) throw failure;
    const gate = this.gate;
    this.gate = undefined;
    return gate?.();
  }

  #keep(name: string, fd: number | undefined): void {
    const old = this.fds.get(name);
    if (old !== undefined) closeSync(old);
    if (fd === undefined) this.fds.delete(name);
    else this.fds.set(name, fd);
  }

  /** A client has come, and is served with this device as all before it. */
  accept(): this {
    this.calls.push(['accept']);
    return this;
  }

  async clientGone(): Promise<void> {
    for (const name of [...this.fds.keys()]) this.#keep(name, undefined);
    await this.#enter('clientGone');
  }

  dmaMap({ fd, ...region }: DmaRegion): Promise<void> | undefined {
    this.#keep(`dma ${region.iova}`, fd);
    try {
      return this.#enter('dmaMap', region, fd !== undefined);
    } catch (error) {
      this.#keep(`dma ${region.iova}`, undefined);
      throw error;
    }
  }

  dmaUnmap(iova: number, size: number): Promise<void> | undefined {
    for (const name of [...this.fds.keys()]) {
      const [kind, address] = name.split(' ');
      if (kind === 'dma' && Number(address) >= iova && Number(address) < iova + size) {
        this.#keep(name, undefined);
      }
    }
    return this.#enter('dmaUnmap', iova, size);
  }

  regionRead(index: number, offset: number, into: Uint8Array): void {
    this.#enter('regionRead', index, offset, into.length);
    const memory = this.memory.get(index)!;
    into.set(memory.subarray(offset, offset + into.length));
  }

  regionWrite(index: number, offset: number, data: Uint8Array): Promise<void> | undefined {
    const gate = this.#enter('regionWrite', index, offset, Buffer.from(data).toString('hex'));
    this.memory.get(index)!.set(data, offset);
    return gate;
  }

  setIrqEventfds(index: number, start: number, fds: readonly (number | undefined)[]) {
    fds.forEach((fd, i) => {
      this.#keep(`irq ${index}:${start + i}`, fd);
    });
    return this.#enter(
      'setIrqEventfds',
      index,
      start,
      fds.map((fd) => fd !== undefined),
    );
  }

  setIrqUnmaskEventfd(index: number, fd: number | undefined): Promise<void> | undefined {
    this.#keep(`unmask ${index}`, fd);
    return this.#enter('setIrqUnmaskEventfd', index, fd !== undefined);
  }

  triggerIrqs(index: number, start: number, fire: readonly boolean[]): void {
    this.#enter('triggerIrqs', index, start, fire);
    fire.forEach((yes, i) => {
      const fd = this.fds.get(`irq ${index}:${start + i}`);
      if (yes && fd !== undefined) native.eventfdSignal(fd);
    });
  }

  maskIrqs(index: number, start: number, which: readonly boolean[], mask: boolean): void {
    this.#enter('maskIrqs', index, start, which, mask);
  }

  disableIrqs(index: number): Promise<void> | undefined {
    for (const name of [...this.fds.keys()]) {
      if (name.startsWith(`irq ${index}:`)) this.#keep(name, undefined);
    }
    return this.#enter('disableIrqs', index);
  }

  reset(): Promise<void> | undefined {
    return this.#enter('reset');
  }

  /** Takes the calls made so far. */
  take(): unknown[][] {
    return this.calls.splice(0);
  }
}

export interface TestServer {
  readonly device: TestDevice;
  readonly server: VfioUserServer;
  readonly path: string;
  readonly events: SessionEvent[];
  /** Resolves when `count` clients in all have gone. */
  gone(count: number): Promise<void>;
  /** Disconnects, stops, and closes what the device has. Also done at the test's end. */
  stop(): Promise<void>;
}

/** A path for a socket in a directory that goes with the test. */
export function socketPath(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'doorbell-vfio-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return join(directory, 'cntrl');
}

export function startServer(t: Test, options: Partial<VfioUserServerOptions> = {}): TestServer {
  const path = options.path ?? socketPath(t);
  const device = new TestDevice();
  const events: SessionEvent[] = [];
  let departed = 0;
  let wake = () => {};
  const server = new VfioUserServer({
    accept: () => device.accept(),
    ...options,
    path,
    onEvent: (event) => {
      events.push(event);
      if (event.type === 'disconnected') {
        departed += 1;
        wake();
      }
    },
  });
  let stopped: Promise<void> | undefined;
  const stop = () => {
    stopped ??= server.close().then(() => closeSync(device.bar0Fd));
    return stopped;
  };
  t.teardown(stop);
  const gone = async (count: number) => {
    while (departed < count) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };
  return { device, server, path, events, gone, stop };
}

/** The client end of a connection: bytes out, messages in, nothing understood. */
export class RawPeer {
  readonly #connection: Connection;
  readonly #frames: (Message | Malformed)[] = [];
  #wake = () => {};
  #ended: string | undefined;

  constructor(fd: number) {
    this.#connection = new Connection(fd, 2 * 1024 * 1024, {
      message: (message) => this.#push(message),
      malformed: (frame) => this.#push(frame),
      closed: (reason) => {
        this.#ended = reason;
        this.#wake();
      },
    });
  }

  static connect(path: string): RawPeer {
    return new RawPeer(native.socketConnect(path));
  }

  #push(frame: Message | Malformed): void {
    this.#frames.push(frame);
    this.#wake();
  }

  send(data: Uint8Array, fds: readonly number[] = []): void {
    this.#connection.send(data, fds);
  }

  /** The next message, whose descriptors are the caller's. Throws if the connection ends instead. */
  async next(): Promise<Message> {
    for (;;) {
      const frame = this.#frames.shift();
      if (frame?.kind === 'message') return frame;
      if (frame !== undefined) throw new Error(frame.reason);
      if (this.#ended !== undefined) throw new Error(this.#ended);
      await this.#wait();
    }
  }

  /** Resolves with the messages that came before the connection ended. */
  async rest(): Promise<(Message | Malformed)[]> {
    while (this.#ended === undefined) await this.#wait();
    return this.#frames.splice(0);
  }

  /** The messages that have come and were not asked for. */
  taken(): Message[] {
    return this.#frames.splice(0).filter((frame) => frame.kind === 'message');
  }

  #wait(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  /** Reads no more, as a client that hangs. */
  stopReading(): void {
    this.#connection.pause();
  }

  resumeReading(): void {
    this.#connection.resume();
  }

  close(): void {
    this.#connection.close('closed by the test');
    for (const frame of this.#frames) if (frame.kind === 'message') closeFds(frame.fds);
  }
}

const countFds = () => readdirSync('/proc/self/fd').length;
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/**
 * Descriptors that this process has open. A server closes what clients sent a little later, in threads of its own: waits until there are
 * `expected`, but not for ever, or by default until their number rests.
 */
export async function openFds(expected?: number): Promise<number> {
  if (expected !== undefined) {
    for (let i = 0; i < 1000 && countFds() !== expected; i++) await pause(5);
    return countFds();
  }
  let count = countFds();
  for (let resting = 0; resting < 3; resting++) {
    await pause(20);
    const now = countFds();
    if (now !== count) resting = 0;
    count = now;
  }
  return count;
}

/** Bytes from hexadecimal digits; blanks are for the reader. */
export function hex(text: string): Buffer {
  const digits = text.replace(/\s+/g, '');
  const data = Buffer.from(digits, 'hex');
  if (data.length * 2 !== digits.length) throw new Error(`not hexadecimal: ${text}`);
  return data;
}

/** A message of little-endian numbers, independent of src/spec: [width in bytes, value] pairs. */
export function words(...pairs: readonly (readonly [1 | 2 | 4 | 8, number | bigint])[]): Buffer {
  return Buffer.concat(
    pairs.map(([width, value]) => {
      const part = Buffer.alloc(width);
      if (width === 8) part.writeBigUInt64LE(BigInt(value));
      else part.writeUIntLE(Number(value), 0, width);
      return part;
    }),
  );
}

/** A header and what follows it. */
export function raw(id: number, command: number, payload: Uint8Array, flags = 0): Buffer {
  const header = words([2, id], [2, command], [4, 16 + payload.length], [4, flags], [4, 0]);
  return Buffer.concat([header, payload]);
}

/** An eventfd that the test closes at its end. */
export function eventfd(t: Test): number {
  const fd = native.eventfdCreate();
  t.teardown(() => closeSync(fd));
  return fd;
}

/** A memfd that the test closes at its end. */
export function memfd(t: Test, size: number): number {
  const fd = native.memfdCreate('test', size);
  t.teardown(() => closeSync(fd));
  return fd;
}

/** A RawPeer that has agreed on version 0.0; commands by number, payloads as bytes. */
export class Caller {
  readonly peer: RawPeer;
  #id = 0x100;

  constructor(peer: RawPeer) {
    this.peer = peer;
  }

  static async join(t: Test, path: string, json = ''): Promise<Caller> {
    const peer = RawPeer.connect(path);
    t.teardown(() => peer.close());
    const caller = new Caller(peer);
    await caller.call(1, Buffer.concat([words([2, 0], [2, 0]), Buffer.from(json)]));
    return caller;
  }

  /** Sends a command; gives its id. */
  send(command: number, payload: Uint8Array, fds: readonly number[] = [], flags = 0): number {
    this.#id = (this.#id + 1) & 0xffff;
    this.peer.send(raw(this.#id, command, payload, flags), fds);
    return this.#id;
  }

  /** The reply to a command: checks that it is one, and no error. */
  async call(command: number, payload: Uint8Array, fds: readonly number[] = []): Promise<Message> {
    const id = this.send(command, payload, fds);
    const reply = await this.peer.next();
    const expected = {
      messageId: id,
      command,
      size: 16 + reply.payload.length,
      flags: 1,
      error: 0,
    };
    assert.deepEqual({ ...reply.header }, expected);
    return reply;
  }

  /** The errno that a command is refused with: checks that the reply is a bare error. */
  async refusal(
    command: number,
    payload: Uint8Array,
    fds: readonly number[] = [],
  ): Promise<number> {
    const id = this.send(command, payload, fds);
    const { header, fds: back } = await this.peer.next();
    const expected = { messageId: id, command, size: 16, flags: 0x21, error: header.error };
    assert.deepEqual({ ...header }, expected);
    assert.deepEqual(back, []);
    return header.error;
  }
}
