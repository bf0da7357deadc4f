/**
 * The terminal while a full-screen view has it: the alternate screen, no cursor, keys one by one. However the process ends (a signal, an
 * exception, `process.exit`), the terminal gets back what it had; only SIGKILL leaves it as it is.
 */
import { writeSync } from 'node:fs';
import { constants } from 'node:os';
import type { ReadStream, WriteStream } from 'node:tty';

const ENTER = '\x1b[?1049h\x1b[?25l';
const LEAVE = '\x1b[0m\x1b[?25h\x1b[?1049l';
const HOME = '\x1b[H';
const CLEAR_LINE = '\x1b[K';
const CLEAR_BELOW = '\x1b[J';
/** Terminals that know it show what lies between at once. */
const BEGIN_UPDATE = '\x1b[?2026h';
const END_UPDATE = '\x1b[?2026l';
/** What a key sends: a sequence, or a character. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: sequences begin with ESC.
const KEY = /\x1b\[[\d;]*[A-Za-z~]|\x1bO[A-Za-z]|[\s\S]/gu;
const STDOUT_FD = 1;
const CTRL_C = '\x03';
const CTRL_L = '\x0c';
const CTRL_Z = '\x1a';
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;

export interface TerminalHandler {
  /** A key, or what a terminal sends for one. Ctrl-C ends the process before it gets here. */
  key(key: string): void;
  /** The picture is gone or has another size: draw it again. */
  redraw(): void;
}

export class Terminal {
  readonly #out: WriteStream;
  /** Undefined if keys cannot be had. */
  readonly #in: ReadStream | undefined;
  #active = false;

  /** `out` is stdout. Takes the terminal until the process ends. */
  constructor(out: WriteStream, input: ReadStream | undefined, handler: TerminalHandler) {
    this.#out = out;
    this.#in = input;
    process.on('exit', () => this.#leave());
    for (const signal of SIGNALS) {
      process.on(signal, () => process.exit(128 + constants.signals[signal]));
    }
    // Nobody sees it any more.
    out.on('error', () => process.exit(0));
    out.on('resize', () => handler.redraw());
    process.on('SIGCONT', () => {
      this.#enter();
      handler.redraw();
    });
    input?.setEncoding('utf8').on('data', (data: Buffer | string) => {
      for (const [key] of String(data).matchAll(KEY)) {
        if (key === CTRL_C) {
          process.exit(128 + constants.signals.SIGINT);
        } else if (key === CTRL_Z) {
          this.#leave();
          process.kill(process.pid, 'SIGSTOP');
        } else if (key === CTRL_L) {
          handler.redraw();
        } else {
          handler.key(key);
        }
      }
    });
    this.#enter();
  }

  get columns(): number {
    return this.#out.columns || 80;
  }

  get rows(): number {
    return this.#out.rows || 24;
  }

  /** Shows these lines, in one write and without clearing first, so that nothing flickers. Drops the picture if the last is not out yet. */
  draw(lines: readonly string[]): void {
    if (!this.#active || this.#out.writableNeedDrain) {
      return;
    }
    const body = lines.map((text) => `${text}${CLEAR_LINE}`).join('\r\n');
    this.#out.write(`${BEGIN_UPDATE}${HOME}${body}${CLEAR_BELOW}${END_UPDATE}`);
  }

  #enter(): void {
    this.#active = true;
    this.#in?.setRawMode(true);
    this.#out.write(ENTER);
  }

  /** Synchronous: it runs while the process exits. */
  #leave(): void {
    if (!this.#active) {
      return;
    }
    this.#active = false;
    try {
      this.#in?.setRawMode(false);
      writeSync(STDOUT_FD, LEAVE);
    } catch {
      // The terminal is gone.
    }
  }
}
