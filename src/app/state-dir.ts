/**
 * The state folder (--state-dir): the configuration as it was after the last change that was answered, for the next start. One process
 * has it at a time.
 *
 * A change is written to a new file, which then takes the old one's name, both durable: whenever the process ends, one of them is whole.
 */
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { open, rename } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { Type } from 'typebox';
import { Value } from 'typebox/value';
import { native } from '../native/index.ts';
import type { ConfigDocument } from '../rpc/save-config.ts';
import { describeError, FailedError, withErrnoDetail } from '../util/errors.ts';

const VERSION = 1;
const FILE = 'state.json';
const LOCK = 'lock';

const Stored = Type.Object({
  version: Type.Integer(),
  subsystems: Type.Array(
    Type.Object({
      subsystem: Type.String(),
      config: Type.Union([
        Type.Null(),
        Type.Array(
          Type.Object({
            method: Type.String(),
            params: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
          }),
        ),
      ]),
    }),
  ),
});

export class StateDir {
  readonly path: string;
  readonly #folder: string;
  readonly #lockFd: number;
  /** What the file holds; undefined if there is none yet. */
  readonly saved: ConfigDocument | undefined;

  /** Makes the folder if it is not there. Throws FailedError if another process has it, or what it holds cannot be understood. */
  constructor(folder: string) {
    this.#folder = resolve(folder);
    this.path = join(this.#folder, FILE);
    try {
      mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
      this.#lockFd = openSync(join(this.#folder, LOCK), 'w', 0o600);
    } catch (error) {
      throw withErrnoDetail(error, this.#folder);
    }
    try {
      if (!native.lockFile(this.#lockFd)) {
        throw new FailedError(`another target uses the state folder ${this.#folder}`);
      }
      this.saved = this.#read();
    } catch (error) {
      closeSync(this.#lockFd);
      throw error;
    }
  }

  #read(): ConfigDocument | undefined {
    let text: string;
    try {
      text = readFileSync(this.path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') {
        return undefined;
      }
      throw withErrnoDetail(error, this.path);
    }
    const hint = 'restore it from a backup, or move it away to start with nothing';
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (error) {
      throw new FailedError(`${this.path} is damaged: ${describeError(error)} (${hint})`);
    }
    if (!Value.Check(Stored, value)) {
      const [first] = Value.Errors(Stored, value);
      throw new FailedError(
        `${this.path} is damaged: ${first?.instancePath || '/'} ${first?.message} (${hint})`,
      );
    }
    if (value.version !== VERSION) {
      throw new FailedError(
        `${this.path} has version ${value.version}, this Doorbell knows ${VERSION}: use the Doorbell that wrote it`,
      );
    }
    return value;
  }

  /** Resolves when the document is on stable storage. Rejects with a system error; the file is then the old one. */
  async write(document: ConfigDocument): Promise<void> {
    const temporary = `${this.path}.new`;
    const file = await open(temporary, 'w', 0o600);
    try {
      await file.writeFile(`${JSON.stringify({ version: VERSION, ...document }, null, 1)}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, this.path);
    const folder = await open(this.#folder, 'r');
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }

  close(): void {
    closeSync(this.#lockFd);
  }
}
