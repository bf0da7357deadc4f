/**
 * Who may talk to the HTTP server. Without a token, programs of this machine, but no web page of another site that a browser on it shows
 * (neither by a forged request nor by a host name that leads here). With a token, whoever knows it.
 */
import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import type { IncomingHttpHeaders } from 'node:http';
import { isIP } from 'node:net';
import { describeError, InvalidError } from '../util/errors.ts';
import { authority, type HttpAddress, isLoopback } from './address.ts';

const MIN_TOKEN_CHARACTERS = 16;
const MAX_TOKEN_BYTES = 4096;
/** A browser logs in again after this time. Seconds. */
const SESSION_SECONDS = 12 * 60 * 60;

/** Reads a token. Throws InvalidError if the file is not there, holds none, or is open to others. */
export function readTokenFile(path: string): string {
  let text: string;
  let mode: number;
  try {
    // Not blocking: a FIFO must not hold up the start.
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      mode = fstatSync(fd).mode;
      const bytes = Buffer.alloc(MAX_TOKEN_BYTES + 1);
      text = bytes.toString('latin1', 0, readSync(fd, bytes));
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw new InvalidError(`token file ${path}: ${describeError(error)}`);
  }
  if ((mode & constants.S_IFMT) !== constants.S_IFREG) {
    throw new InvalidError(`token file ${path} is not a regular file`);
  }
  if ((mode & 0o077) !== 0) {
    throw new InvalidError(`token file ${path} is open to other users (chmod 600 it)`);
  }
  const token = text.replace(/\r?\n$/, '');
  if (!/^[\x21-\x7e]+$/.test(token) || token.length < MIN_TOKEN_CHARACTERS) {
    throw new InvalidError(
      `token file ${path} must hold one line of at least ${MIN_TOKEN_CHARACTERS} printable characters without spaces`,
    );
  }
  if (text.length > MAX_TOKEN_BYTES) {
    throw new InvalidError(`token file ${path} is longer than ${MAX_TOKEN_BYTES} bytes`);
  }
  return token;
}

/** Throws InvalidError if others than this machine could connect without a token. */
export function checkReach(address: HttpAddress, token: string | undefined): void {
  if (token === undefined && !isLoopback(address.host)) {
    throw new InvalidError(
      `--http ${authority(address)} can be reached from other machines: it needs --http-token-file`,
    );
  }
}

export interface AccessOptions {
  /** Asked of everybody. */
  readonly token?: string | undefined;
  /** Where a reverse proxy serves us, as `parseOrigin` gives them. */
  readonly origins?: readonly string[];
}

/** A reason to refuse a request. */
export interface Refusal {
  readonly status: 401 | 403;
  readonly message: string;
  /** Somebody tries what nobody does by mistake. */
  readonly suspicious?: true;
}

const NO_TOKEN: Refusal = { status: 401, message: 'A token is needed' };
export const WRONG_TOKEN: Refusal = { status: 401, message: 'Wrong token', suspicious: true };

/** What a client claims, for a message. */
const quote = (text: string): string => JSON.stringify(text.slice(0, 128));

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();

export class Access {
  readonly #token: Buffer | undefined;
  readonly #origins: ReadonlySet<string>;
  readonly #hosts: ReadonlySet<string>;
  /** Signs sessions. They end with the process. */
  readonly #key = randomBytes(32);

  constructor(options: AccessOptions = {}) {
    this.#token = options.token === undefined ? undefined : digest(options.token);
    this.#origins = new Set(options.origins);
    this.#hosts = new Set([...this.#origins].map((origin) => new URL(origin).host));
  }

  get needsToken(): boolean {
    return this.#token !== undefined;
  }

  /** Of every request. A page of a site whose name was made to lead to this machine (DNS rebinding) comes with that name. */
  checkHost(headers: IncomingHttpHeaders): Refusal | undefined {
    const { host = '' } = headers;
    if (this.needsToken || this.#hosts.has(host.toLowerCase()) || isLocalName(host)) {
      return undefined;
    }
    const message = `Host ${quote(host)} is not a name of this server`;
    return { status: 403, message, suspicious: true };
  }

  /** Of requests that do something, or are expensive: not from a page of another site. */
  checkSite(headers: IncomingHttpHeaders): Refusal | undefined {
    const { origin, host = '' } = headers;
    const site = headers['sec-fetch-site'] ?? 'none';
    if (origin !== undefined && !this.#origins.has(origin)) {
      if (origin !== `http://${host}` && origin !== `https://${host}`) {
        const message = `Requests from ${quote(origin)} are not accepted`;
        return { status: 403, message, suspicious: true };
      }
    }
    return site === 'same-origin' || site === 'none'
      ? undefined
      : { status: 403, message: 'Requests from another site are not accepted' };
  }

  /** Of requests that tell or do anything: the token, or a session that was opened with it. */
  checkToken(headers: IncomingHttpHeaders): Refusal | undefined {
    if (this.#token === undefined) {
      return undefined;
    }
    const bearer = /^Bearer +(\S+)$/i.exec(headers.authorization ?? '');
    if (bearer !== null) {
      return this.isToken(bearer[1]) ? undefined : WRONG_TOKEN;
    }
    const cookies = (headers.cookie ?? '').split(/; */);
    const prefix = `${cookieName(headers)}=`;
    const session = cookies.find((cookie) => cookie.startsWith(prefix));
    return session !== undefined && this.#isSession(session.slice(prefix.length))
      ? undefined
      : NO_TOKEN;
  }

  /** Takes the same time for every wrong token. */
  isToken(text: string): boolean {
    return this.#token !== undefined && timingSafeEqual(digest(text), this.#token);
  }

  /** The Set-Cookie header that opens a session; `undefined` ends it. */
  sessionCookie(headers: IncomingHttpHeaders, open = true): string {
    const expires = Math.floor(Date.now() / 1000) + SESSION_SECONDS;
    const value = open ? `${expires}.${this.#sign(expires)}` : '';
    const secure = headers.origin?.startsWith('https:') === true ? '; Secure' : '';
    const age = open ? SESSION_SECONDS : 0;
    return `${cookieName(headers)}=${value}; Path=/; Max-Age=${age}; HttpOnly; SameSite=Strict${secure}`;
  }

  #isSession(value: string): boolean {
    const match = /^(\d{1,12})\.([\w-]{43})$/.exec(value);
    if (match === null || Number(match[1]) * 1000 < Date.now()) {
      return false;
    }
    return timingSafeEqual(Buffer.from(match[2]), Buffer.from(this.#sign(Number(match[1]))));
  }

  #sign(expires: number): string {
    return createHmac('sha256', this.#key).update(String(expires)).digest('base64url');
  }
}

/** Browsers give the cookies of a host to all its ports. */
function cookieName(headers: IncomingHttpHeaders): string {
  const port = /:(\d+)$/.exec(headers.host ?? '')?.[1] ?? '';
  return `doorbell${port}`;
}

/** `localhost` or a loopback address, at any port (it may be forwarded). */
function isLocalName(host: string): boolean {
  const name = host.replace(/:\d+$/, '').toLowerCase();
  const inner = /^\[(.*)\]$/.exec(name)?.[1] ?? name;
  return inner === 'localhost' || (isIP(inner) !== 0 && isLoopback(inner));
}
