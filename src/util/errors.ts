/**
 * The errors of the control plane, by what the operator can do about them. Each edge translates them once
 * (the JSON-RPC dispatcher into codes, the command line into a sentence).
 */
import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';

/** What was asked for contradicts itself or the state of the target. Nothing was changed. */
export class InvalidError extends Error {
  override readonly name = 'InvalidError';
  /** The message without the parameter. */
  readonly reason: string;

  /** `key`: the parameter that is wrong, for who sent it. */
  constructor(reason: string, { key, cause }: ErrorOptions & { readonly key?: string } = {}) {
    super(key === undefined ? reason : `key '${key}': ${reason}`, { cause });
    this.reason = reason;
  }
}

/** The request was valid and could not be carried out. */
export class FailedError extends Error {
  override readonly name = 'FailedError';
}

type ErrnoCode = keyof typeof constants.errno;

/** A failure that has an errno. The message is the system's own text for it, then what it is about: `: detail`. */
export class ErrnoError extends Error {
  override readonly name = 'ErrnoError';
  readonly code: ErrnoCode;
  /** Positive. */
  readonly errno: number;
  /** What it is about. */
  readonly detail: string;

  constructor(code: ErrnoCode, detail: string) {
    const errno = constants.errno[code];
    super(withDetail(strerror(errno), detail));
    this.code = code;
    this.errno = errno;
    this.detail = detail;
  }
}

/** What is wrong in words of ours, for who did not call the method: without its parameter and the system's text. */
export function describeReason(error: unknown): string {
  if (error instanceof InvalidError) {
    return error.reason;
  }
  return error instanceof ErrnoError && error.detail !== '' ? error.detail : describeError(error);
}

/** Texts that clients of SPDK know, as the C library has them; libuv words some of them differently. */
const TEXT: Partial<Record<ErrnoCode, string>> = {
  EACCES: 'Permission denied',
  EADDRINUSE: 'Address already in use',
  EBUSY: 'Device or resource busy',
  EEXIST: 'File exists',
  EINVAL: 'Invalid argument',
  EIO: 'Input/output error',
  EISDIR: 'Is a directory',
  EMFILE: 'Too many open files',
  ENAMETOOLONG: 'File name too long',
  ENODEV: 'No such device',
  ENOENT: 'No such file or directory',
  ENOMEM: 'Cannot allocate memory',
  ENOSPC: 'No space left on device',
  ENOTDIR: 'Not a directory',
  EPERM: 'Operation not permitted',
  EROFS: 'Read-only file system',
  ETIMEDOUT: 'Connection timed out',
};

const TEXT_BY_ERRNO = new Map(
  Object.entries(TEXT).map(([code, text]) => [constants.errno[code as ErrnoCode], text]),
);

/** The text of a (positive) errno. */
export function strerror(errno: number): string {
  return (
    TEXT_BY_ERRNO.get(errno) ?? getSystemErrorMap().get(-errno)?.[1] ?? `Unknown error ${errno}`
  );
}

/** The name of a (positive) errno. */
export function errnoName(errno: number): string {
  return getSystemErrorMap().get(-errno)?.[0] ?? `errno ${errno}`;
}

function withDetail(text: string, detail: string): string {
  return detail === '' ? text : `${text}: ${detail}`;
}

/** The positive errno of an error thrown by Node, by the addon, or by us; `undefined` for any other value. */
export function errnoOf(error: unknown): number | undefined {
  if (error instanceof Error && 'errno' in error && typeof error.errno === 'number') {
    return Math.abs(error.errno);
  }
  return undefined;
}

/** A system error with a detail of our own; any other error as it is. */
export function withErrnoDetail(error: unknown, detail: string): unknown {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' && code in constants.errno
    ? new ErrnoError(code as ErrnoCode, detail)
    : error;
}

/** One sentence for an operator: the system's text and the path it is about, or the error's own message. */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) {
    return String(error);
  }
  const errno = errnoOf(error);
  if (errno === undefined || error instanceof ErrnoError) {
    return error.message;
  }
  return withDetail(
    strerror(errno),
    'path' in error && typeof error.path === 'string' ? error.path : '',
  );
}
