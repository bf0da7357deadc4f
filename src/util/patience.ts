/** Waiting with an end. */
import { FailedError } from './errors.ts';

/**
 * Settles as `promise` does; if it has not after `ms` milliseconds, rejects with this error, or FailedError and these words. What `promise`
 * stands for goes on: how it ends is nobody's concern then.
 */
export async function patiently<T>(
  promise: Promise<T>,
  ms: number,
  failure: string | Error,
): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const patience = new Promise<never>((_, reject) => {
    const error = typeof failure === 'string' ? new FailedError(failure) : failure;
    timer = setTimeout(() => reject(error), ms);
  });
  try {
    return await Promise.race([promise, patience]);
  } finally {
    clearTimeout(timer);
  }
}
