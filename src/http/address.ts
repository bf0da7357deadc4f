/** Where the HTTP server listens (`PORT`, `ADDRESS:PORT` or `[IPV6]:PORT`), and where a proxy serves it. */
import { isIP } from 'node:net';

export interface HttpAddress {
  /** An IP address. */
  readonly host: string;
  /** 0: any that is free. */
  readonly port: number;
}

const MAX_PORT = 65535;

/** Throws an Error that says what is wrong. A port alone means this machine only. */
export function parseHttpAddress(text: string): HttpAddress {
  const match = /^(?:(?:\[([^\]]*)\]|([^:]*)):)?(\d{1,5})$/.exec(text);
  if (match === null) {
    throw new Error('It must be PORT, ADDRESS:PORT or [IPV6-ADDRESS]:PORT.');
  }
  const [, v6, v4 = '127.0.0.1', digits] = match;
  const host = v6 ?? (v4 === 'localhost' ? '127.0.0.1' : v4);
  if (isIP(host) !== (v6 === undefined ? 4 : 6)) {
    throw new Error(`${v6 ?? v4} is not an IP address.`);
  }
  const port = Number(digits);
  if (port > MAX_PORT) {
    throw new Error(`The port must be at most ${MAX_PORT}.`);
  }
  return { host, port };
}

/** Only programs of this machine can connect there. */
export function isLoopback(host: string): boolean {
  return host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

/** `host:port` as it stands in a URL. */
export function authority({ host, port }: HttpAddress): string {
  return isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`;
}

/** The origin `text` stands for. Throws an Error. */
export function parseOrigin(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.href !== `${url.origin}/`) {
    throw new Error('It must be the address of a site: https://HOST or https://HOST:PORT.');
  }
  return url.origin;
}
