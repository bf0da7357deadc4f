/** Where log lines go: stderr, written at once and never waited for. Owned by main. */
import { fstatSync, writeSync } from 'node:fs';

/** Takes a line, with its level by pino's numbers. False if it was lost. */
export type LogSink = (line: string, level: number) => boolean;

const STDERR = 2;
const NEWLINE = 0x0a;

/**
 * Writes lines to stderr as it is called, so that the last line before an exit is not lost. One that cannot be written now (the
 * reader does not keep up, the disk is full) is dropped: the guests' disks do not wait for the log.
 */
export function stderrSink(): LogSink {
  // Node's stream makes a pipe or a socket non-blocking as it comes into being.
  process.stderr.on('error', () => {});
  const journal = writesToJournal();
  let midLine = false;
  return (line, level) => {
    const text = journal ? withPriority(line, level) : line;
    const bytes = Buffer.from(midLine ? `\n${text}` : text);
    let written = 0;
    try {
      while (written < bytes.length) {
        written += writeSync(STDERR, bytes, written);
      }
    } catch {
      // Nobody to tell: the logger counts it.
    }
    if (written > 0) {
      midLine = bytes[written - 1] !== NEWLINE;
    }
    return written === bytes.length;
  };
}

/** systemd's journal reads stderr ($JOURNAL_STREAM, systemd.exec(5)). */
function writesToJournal(): boolean {
  const { dev, ino } = fstatSync(STDERR);
  return process.env.JOURNAL_STREAM === `${dev}:${ino}`;
}

/** pino's tens as the journal's priorities (sd-daemon(3)): from 10 (trace) to 60 (fatal). */
const PRIORITIES = [7, 7, 7, 6, 4, 3, 2];

/** Each row of a line with its priority in front, which the journal takes off again. */
export function withPriority(line: string, level: number): string {
  return line.replaceAll(/^(?=.)/gm, `<${PRIORITIES[level / 10] ?? 6}>`);
}
