/**
 * The command channel to the guest's init (test/vm/guest-init.sh) over a serial port: one command at a time, its
 * output, its exit code. It owns what it has received and not yet given out.
 */

import type { Readable, Writable } from 'node:stream';

const READY = 'guest ready\n';
/** The guest reads a line into a buffer of 4,096 bytes. */
const COMMAND_MAX = 3000;

export interface CommandResult {
  /** The command's exit code. */
  readonly status: number;
  /** What it printed, stdout and stderr together. */
  readonly output: string;
}

interface Wait {
  readonly name: string;
  /** Looks at what was received; undefined: not yet. It may throw. */
  readonly look: (received: string) => CommandResult | undefined;
  readonly resolve: (result: CommandResult) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

export class SerialCommands {
  /** All that came and went, for a failure's report. */
  transcript = '';
  #input: Writable;
  #received = '';
  #count = 0;
  #wait: Wait | undefined;
  #closed: Error | undefined;

  constructor(input: Writable, output: Readable) {
    this.#input = input;
    // The other end's death is reported through close().
    input.on('error', () => {});
    output.setEncoding('utf8');
    output.on('data', (text: string) => {
      this.transcript += text;
      this.#received += text;
      this.#check();
    });
  }

  /** Waits until the guest's init takes commands: after a boot, and after each reboot. */
  ready(timeoutMs: number): Promise<unknown> {
    return this.#until('boot', timeoutMs, (received) =>
      received.includes(READY) ? { status: 0, output: '' } : undefined,
    );
  }

  /** Runs a shell command of one line. A status other than 0 is a result, no error. */
  run(command: string, timeoutMs: number): Promise<CommandResult> {
    if (command.includes('\n') || Buffer.byteLength(command) > COMMAND_MAX) {
      throw new RangeError(`a command is one line of at most ${COMMAND_MAX} bytes: ${command}`);
    }
    this.#count += 1;
    const marker = `doorbell-end-${this.#count}`;
    const end = new RegExp(`\\n${marker} (\\d+)\\n`);
    const result = this.#until(command, timeoutMs, (received) => {
      const match = end.exec(received);
      if (match) {
        return { status: Number(match[1]), output: received.slice(0, match.index) };
      }
      if (received.includes(READY)) {
        throw new Error(`the guest restarted during: ${command}`);
      }
      return undefined;
    });
    this.send(`${marker} ${command}`);
    return result;
  }

  /** Sends a line without waiting for anything. */
  send(line: string): void {
    this.transcript += `>>> ${line}\n`;
    this.#input.write(`${line}\n`);
  }

  /** Says that nothing more will come: the waiting command, and each later one, fails with this error. */
  close(error: Error): void {
    this.#closed ??= error;
    this.#settle((wait) => wait.reject(error));
  }

  #until(name: string, timeoutMs: number, look: Wait['look']): Promise<CommandResult> {
    if (this.#wait) {
      throw new Error(`the guest is busy: ${this.#wait.name}`);
    }
    if (this.#closed) {
      return Promise.reject(this.#closed);
    }
    this.#received = '';
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#settle((wait) => wait.reject(new Error(`no end in ${timeoutMs} ms: ${name}`)));
      }, timeoutMs);
      this.#wait = { name, look, resolve, reject, timer };
    });
  }

  #check(): void {
    try {
      const result = this.#wait?.look(this.#received);
      if (result) {
        this.#settle((wait) => wait.resolve(result));
      }
    } catch (error) {
      this.#settle((wait) => wait.reject(error as Error));
    }
  }

  #settle(how: (wait: Wait) => void): void {
    const wait = this.#wait;
    if (wait) {
      this.#wait = undefined;
      clearTimeout(wait.timer);
      how(wait);
    }
  }
}
