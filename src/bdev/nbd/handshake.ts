/**
 * What client and server agree on before the first request: the fixed newstyle handshake with OPTION GO, block sizes and structured replies.
 * Lengths that a server names are bounded, and its texts shortened. Runs on main.
 */
import {
  DEFAULT_MAXIMUM_PAYLOAD,
  DEFAULT_MINIMUM_BLOCK,
  ExportFlag,
  HandshakeFlag,
  Info,
  InfoBlockSize,
  InfoExport,
  MAX_OPTION_REPLY,
  NBD_MAGIC,
  NbdGreeting,
  NbdOption,
  NbdOptionReply,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  Option,
  OptionReply,
} from '../../spec/nbd.ts';
import { ErrnoError } from '../../util/errors.ts';
import type { Wire } from './wire.ts';

/** What a server says of an export. */
export interface NbdExport {
  /** Bytes. */
  readonly size: number;
  /** ExportFlag. */
  readonly flags: number;
  /** Offsets and lengths are multiples of the first, best of the second; data of one request is at most the third. Bytes. */
  readonly minimum: number;
  readonly preferred: number;
  readonly maximum: number;
  /** Replies to reads come in chunks. */
  readonly structured: boolean;
}

/** Replies to one option, INFO among them. */
const MAX_REPLIES = 64;
/** Of a server's text, what is passed on. */
const MAX_TEXT = 200;
/** In place of a preferred block size that is not told. Bytes. */
const DEFAULT_PREFERRED = 4096;

interface Reply {
  readonly type: number;
  readonly data: DataView;
}

const broken = (what: string) => new ErrnoError('EPROTO', `no NBD server as it should be: ${what}`);

/** Rejects with EPROTO, ENOENT for an export that there is not, EACCES if TLS is asked for, what the server or the system says else. */
export async function negotiate(wire: Wire, exportName: string): Promise<NbdExport> {
  await greet(wire);
  const structured = await askStructured(wire);
  const told = await go(wire, exportName);
  if (wire.surplus > 0) {
    throw broken('it sends what nobody asked for');
  }
  return { ...told, structured };
}

async function greet(wire: Wire): Promise<void> {
  const greeting = NbdGreeting.read(viewOf(await wire.receive(NbdGreeting.size)));
  if (greeting.magicHigh !== NBD_MAGIC[0] || greeting.magicLow !== NBD_MAGIC[1]) {
    throw broken('it begins with something else');
  }
  if (
    greeting.optionHigh !== OPTION_MAGIC[0] ||
    greeting.optionLow !== OPTION_MAGIC[1] ||
    (greeting.flags & HandshakeFlag.FIXED_NEWSTYLE) === 0
  ) {
    throw broken('it knows only the old handshake');
  }
  const flags = Buffer.alloc(4);
  flags.writeUInt32BE(greeting.flags & (HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES));
  wire.send(flags);
}

async function askStructured(wire: Wire): Promise<boolean> {
  sendOption(wire, Option.STRUCTURED_REPLY, Buffer.alloc(0));
  const { type, data } = await receiveReply(wire, Option.STRUCTURED_REPLY);
  if (type === OptionReply.TLS_REQUIRED) {
    throw refusal(type, data);
  }
  return type === OptionReply.ACK;
}

async function go(wire: Wire, exportName: string): Promise<Omit<NbdExport, 'structured'>> {
  const name = Buffer.from(exportName);
  const head = Buffer.alloc(4);
  head.writeUInt32BE(name.length);
  // One thing is asked for: the block sizes, which says that they are kept to.
  const tail = Buffer.alloc(4);
  tail.writeUInt16BE(1, 0);
  tail.writeUInt16BE(Info.BLOCK_SIZE, 2);
  sendOption(wire, Option.GO, Buffer.concat([head, name, tail]));
  let told: { size: number; flags: number } | undefined;
  let sizes = {
    minimum: DEFAULT_MINIMUM_BLOCK,
    preferred: DEFAULT_PREFERRED,
    maximum: DEFAULT_MAXIMUM_PAYLOAD,
  };
  for (let i = 0; i < MAX_REPLIES; i++) {
    const { type, data } = await receiveReply(wire, Option.GO);
    if (type === OptionReply.ACK) {
      if (told === undefined) {
        throw broken('it does not tell the size');
      }
      return { ...told, ...sizes };
    }
    if (type !== OptionReply.INFO) {
      throw refusal(type, data);
    }
    const info = data.byteLength < 2 ? undefined : data.getUint16(0);
    if (info === Info.EXPORT) {
      told = exportInfo(data);
    } else if (info === Info.BLOCK_SIZE) {
      sizes = blockSizes(data);
    }
  }
  throw broken('its answers have no end');
}

function exportInfo(data: DataView): { size: number; flags: number } {
  if (data.byteLength !== InfoExport.size) {
    throw broken('the size of the export has another length');
  }
  const { size, flags } = InfoExport.read(data);
  if (!Number.isSafeInteger(size)) {
    throw broken('the export has more than 2^53 bytes');
  }
  return { size, flags: (flags & ExportFlag.HAS_FLAGS) === 0 ? 0 : flags };
}

function blockSizes(data: DataView): Pick<NbdExport, 'minimum' | 'preferred' | 'maximum'> {
  if (data.byteLength !== InfoBlockSize.size) {
    throw broken('the block sizes have another length');
  }
  const { minimum, preferred, maximum } = InfoBlockSize.read(data);
  const isPower = (size: number) => size > 0 && Number.isInteger(Math.log2(size));
  if (!isPower(minimum) || !isPower(preferred) || preferred < minimum || maximum < minimum) {
    throw broken(`block sizes of ${minimum}, ${preferred} and ${maximum} bytes`);
  }
  return { minimum, preferred, maximum };
}

function sendOption(wire: Wire, option: number, data: Uint8Array): void {
  const [magicHigh, magicLow] = OPTION_MAGIC;
  wire.send(NbdOption.encode({ magicHigh, magicLow, option, length: data.length }), data);
}

async function receiveReply(wire: Wire, option: number): Promise<Reply> {
  const head = NbdOptionReply.read(viewOf(await wire.receive(NbdOptionReply.size)));
  const [magicHigh, magicLow] = OPTION_REPLY_MAGIC;
  if (head.magicHigh !== magicHigh || head.magicLow !== magicLow || head.option !== option) {
    throw broken('it answers something else');
  }
  if (head.length > MAX_OPTION_REPLY) {
    throw broken(`an answer of ${head.length} bytes`);
  }
  return { type: head.type, data: viewOf(await wire.receive(head.length)) };
}

function refusal(type: number, data: DataView): Error {
  const text = Buffer.from(data.buffer, data.byteOffset, data.byteLength)
    .toString('utf8')
    .replace(/[^\x20-\x7e]/g, '?')
    .slice(0, MAX_TEXT);
  const said = text === '' ? '' : `: the server says "${text}"`;
  switch (type) {
    case OptionReply.TLS_REQUIRED:
      return new ErrnoError('EACCES', `the server asks for TLS, which is not supported${said}`);
    case OptionReply.UNKNOWN_EXPORT:
      return new ErrnoError('ENOENT', `there is no such export${said}`);
    case OptionReply.POLICY:
      return new ErrnoError('EPERM', `the server refuses the export${said}`);
    case OptionReply.SHUTDOWN:
      return new ErrnoError('EAGAIN', `the server is about to end${said}`);
    case OptionReply.UNSUPPORTED:
      return new ErrnoError('EOPNOTSUPP', `the server does not know NBD_OPT_GO${said}`);
    default:
      return type >= OptionReply.ERRORS
        ? new ErrnoError(
            'EIO',
            `the server refuses the export (${type - OptionReply.ERRORS})${said}`,
          )
        : broken(`an answer of type ${type}`);
  }
}

function viewOf(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.byteLength);
}
