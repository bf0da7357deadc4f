/** Errors that a client gets as an errno, and how any thrown value becomes one. */
import { constants } from 'node:os';

type ErrnoName = keyof typeof constants.errno;

/** A request that is not carried out. */
export class Refusal extends Error {
  override readonly name = 'Refusal';
  readonly code: ErrnoName;
  /** Positive. */
  readonly errno: number;

  constructor(code: ErrnoName, reason: string) {
    super(reason);
    this.code = code;
    this.errno = constants.errno[code];
  }

  /** One with an errno that another process told; EIO if it is none. */
  static of(errno: number, reason: string): Refusal {
    const found = Object.entries(constants.errno).find(([, value]) => value === errno);
    const code = (found?.[0] ?? 'EIO') as ErrnoName;
    return new Refusal(code, `${reason}: ${code}`);
  }
}

/** The errno to answer with: that of the error if it carries one (Node's own are negative), EIO if not, which is a bug of ours. */
export function errnoOf(error: unknown): { errno: number; known: boolean } {
  const errno = (error as { errno?: unknown } | null | undefined)?.errno;
  if (typeof errno === 'number' && Number.isInteger(errno) && errno !== 0) {
    return { errno: Math.abs(errno), known: true };
  }
  return { errno: constants.errno.EIO, known: false };
}
