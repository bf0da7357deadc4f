/**
 * Where an export is: `nbd://HOST[:PORT]/[EXPORT]` or `nbd+unix:///[EXPORT]?socket=PATH`, as doc/uri.md of the project NetworkBlockDevice/nbd
 * has them. The name of an export may be empty, which is a name as well.
 */
import { MAX_EXPORT_NAME, NBD_PORT } from '../../spec/nbd.ts';
import { InvalidError } from '../../util/errors.ts';

export type NbdAddress =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: string }
  | { readonly kind: 'unix'; readonly path: string };

export interface NbdUri {
  readonly address: NbdAddress;
  readonly exportName: string;
}

const bad = (reason: string) => new InvalidError(reason, { key: 'uri' });

/** Throws InvalidError, with what is wrong in words. */
export function parseNbdUri(text: string): NbdUri {
  if (!URL.canParse(text)) {
    throw bad('must be nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH');
  }
  const url = new URL(text);
  if (url.protocol === 'nbds:' || url.protocol === 'nbds+unix:') {
    throw bad('TLS is not supported');
  }
  if (url.protocol !== 'nbd:' && url.protocol !== 'nbd+unix:') {
    throw bad('must begin with nbd:// or nbd+unix://');
  }
  if (url.username !== '' || url.password !== '') {
    throw bad('must not name a user: there are none without TLS');
  }
  return {
    address: url.protocol === 'nbd:' ? tcpAddress(url) : unixAddress(url),
    exportName: exportName(url),
  };
}

function tcpAddress(url: URL): NbdAddress {
  const host = decode(url.hostname).replace(/^\[(.*)\]$/, '$1');
  if (host === '') {
    throw bad('has no host');
  }
  if (host.length > 255) {
    throw bad('has a host of more than 255 bytes');
  }
  if (url.search !== '' || url.hash !== '') {
    throw bad("must have nothing after the export's name");
  }
  return { kind: 'tcp', host, port: url.port === '' ? String(NBD_PORT) : url.port };
}

function unixAddress(url: URL): NbdAddress {
  if (url.host !== '') {
    throw bad('must not have a host: write three slashes, nbd+unix:///EXPORT?socket=PATH');
  }
  const path = url.searchParams.get('socket') ?? '';
  // What the kernel has room for, less the end of the text.
  if (!path.startsWith('/') || path.includes('\0') || Buffer.byteLength(path) > 107) {
    throw bad("needs 'socket', an absolute path of at most 107 bytes");
  }
  return { kind: 'unix', path };
}

function exportName(url: URL): string {
  const name = decode(url.pathname.replace(/^\//, ''));
  if (name.includes('\0') || Buffer.byteLength(name) > MAX_EXPORT_NAME) {
    throw bad(`has an export whose name has more than ${MAX_EXPORT_NAME} bytes, or a zero`);
  }
  return name;
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw bad('has a % that is not followed by a code of UTF-8');
  }
}
