/** QEMU's monitor (QMP): commands, each with its answer. Events are dropped. */
import { createConnection, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

interface Waiter {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

export class Qmp {
  readonly #socket: Socket;
  /** The greeting is the first; then one a command, in order. */
  readonly #waiting: Waiter[] = [];
  readonly #greeted: Promise<unknown>;

  constructor(path: string) {
    this.#socket = createConnection(path);
    this.#greeted = this.#next();
    const lines = createInterface({ input: this.#socket });
    lines.on('line', (line) => this.#receive(JSON.parse(line)));
    this.#socket.on('error', (error) => this.#end(error));
    this.#socket.on('close', () => this.#end(new Error('QEMU closed its monitor')));
  }

  /** Ready for `execute`. */
  async ready(): Promise<void> {
    await this.#greeted;
    await this.execute('qmp_capabilities');
  }

  /** Resolves with what the command returns. Rejects with QEMU's words. */
  execute(command: string, args: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    const answer = this.#next();
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    return answer;
  }

  close(): void {
    this.#socket.destroy();
  }

  #next(): Promise<unknown> {
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  #receive(message: {
    readonly event?: string;
    readonly return?: unknown;
    readonly error?: { readonly desc: string };
  }): void {
    if (message.event !== undefined) {
      return;
    }
    const waiter = this.#waiting.shift();
    if (message.error === undefined) {
      waiter?.resolve(message.return);
    } else {
      waiter?.reject(new Error(message.error.desc));
    }
  }

  #end(error: Error): void {
    for (const { reject } of this.#waiting.splice(0)) {
      reject(error);
    }
  }
}
