/**
 * Opens a file again whose write-back may have failed: its bdevs get new descriptions, which have not failed. Before that, all that the
 * page cache still has to write is written, and the rest is thrown away: pages that were lost on their way to the disk look as if they were
 * on it, and a Flush that succeeds must not be about them. Owned by main.
 */
import { BlockingCalls } from '../native/blocking-calls.ts';
import type { Descriptions } from './descriptions.ts';
import type { FailedFiles } from './failed-files.ts';
import type { FileBdev } from './file.ts';

/**
 * `bdevs`: all of one file. Resolves with the descriptions before, to be closed when no reactor uses them. Rejects with what the system
 * says; then all is as it was.
 */
export async function reopenFile(
  bdevs: readonly FileBdev[],
  failed: FailedFiles,
): Promise<readonly Descriptions[]> {
  const calls = new BlockingCalls({ limit: 1 });
  const opened = new Map<FileBdev, Descriptions>();
  try {
    for (const bdev of bdevs) {
      opened.set(bdev, await bdev.descriptions.again(calls));
    }
    // The errors that are left are of now: each new description would be told of them.
    for (const descriptions of opened.values()) {
      await descriptions.sync();
    }
    await calls.run('dropCache', opened.values().next().value!.main);
  } catch (error) {
    for (const descriptions of opened.values()) {
      void descriptions.close();
    }
    throw error;
  }
  failed.renew(bdevs[0].file);
  return [...opened].map(([bdev, descriptions]) => bdev.replace(descriptions));
}
