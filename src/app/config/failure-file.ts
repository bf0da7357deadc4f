/**
 * The files whose write-back has failed, kept in the state folder: what a guest was told is not durable does not become so by a restart.
 * Owned by main.
 */
import type { FailedFile, FailedFiles } from '../../bdev/failed-files.ts';
import type { Logger } from '../../util/log.ts';
import { KeptFile } from './kept-file.ts';

/** Fields of FailedFile that are texts. */
const TEXTS = ['device', 'inode', 'born', 'path', 'time'] as const;

export class FailureFile extends KeptFile<FailedFile> {
  #waits = false;

  constructor(folder: string, log: Logger) {
    const complaint = 'a failed write-back could not be kept: after a restart it will not be known';
    super(folder, { name: 'write-back.json', key: 'files', isEntry, complaint }, log);
  }

  /** Keeps what `files` have from now on. */
  follow(files: FailedFiles): void {
    files.onChange = () => {
      if (!this.#waits) {
        this.#waits = true;
        const list = () => {
          this.#waits = false;
          return files.list();
        };
        // It is in the log.
        this.save(list).catch(() => {});
      }
    };
  }
}

const isEntry = (file: Readonly<Record<string, unknown>>): boolean =>
  (file.kind === 'file' || file.kind === 'device') &&
  Number.isInteger(file.errno) &&
  Number(file.errno) > 0 &&
  TEXTS.every((key) => typeof file[key] === 'string');
