/**
 * The files and folders that a configuration names, on file systems that may not answer: each path is asked for by itself and for a bounded
 * time, so that a dead one keeps no other from being looked at.
 */
import { BlockingCalls } from '../../native/blocking-calls.ts';
import { FailedError } from '../../util/errors.ts';
import { patiently } from '../../util/patience.ts';

/** How long one path is waited for. Milliseconds. */
const PATIENCE_MS = 5000;

/** A file system did not answer in time. */
export class NoAnswer extends FailedError {}

/** Those that have not answered, of all earlier questions: they are not asked more often, whatever is reloaded. */
const silent = new Set<string>();

/** Carries out what concerns one path. Rejects with NoAnswer in a bounded time if its file system does not answer. */
export async function askPath<T>(
  path: string,
  operation: (calls: BlockingCalls) => Promise<T>,
): Promise<T> {
  const silence = new NoAnswer(`${path}: its file system does not answer`);
  if (silent.has(path)) {
    throw silence;
  }
  const asked = operation(new BlockingCalls({ limit: 1 }));
  let over = false;
  const ended = asked.then(
    () => {},
    () => {},
  );
  void ended.then(() => {
    over = true;
    silent.delete(path);
  });
  try {
    return await patiently(asked, PATIENCE_MS, silence);
  } finally {
    if (!over) {
      silent.add(path);
    }
  }
}
