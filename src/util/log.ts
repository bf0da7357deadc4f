/**
 * Structured logs on stderr: JSON lines, or plain lines when stderr is a terminal. Owned by main; reactors do not log.
 */
import { type Level, type Logger, pino } from 'pino';

export type { Logger } from 'pino';

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogLevel = Level | 'silent';

/** Keys that every line has, or that are printed in a place of their own. */
const OWN_KEYS = new Set(['level', 'time', 'pid', 'hostname', 'msg', 'err']);

/** A logger that writes to stderr as it is called, so that the last line before an exit is not lost. */
export function createLogger(level: LogLevel): Logger {
  if (process.stderr.isTTY) {
    return pino(
      { level },
      {
        write(line: string): void {
          process.stderr.write(formatLine(line));
        },
      },
    );
  }
  return pino({ level }, pino.destination({ fd: 2, sync: true }));
}

/** One JSON line as `12:34:56.789 info  message key=value`. */
export function formatLine(line: string): string {
  const entry: Record<string, unknown> = JSON.parse(line);
  const time = new Date(Number(entry.time)).toISOString().slice(11, 23);
  const level = pino.levels.labels[Number(entry.level)] ?? String(entry.level);
  let text = `${time} ${level.padEnd(5)} ${entry.msg ?? ''}`;
  for (const [key, value] of Object.entries(entry)) {
    if (!OWN_KEYS.has(key)) {
      text += ` ${key}=${formatValue(value)}`;
    }
  }
  const err = entry.err as { stack?: string; message?: string } | undefined;
  if (err !== undefined) {
    text += `\n${err.stack ?? err.message}`;
  }
  return `${text}\n`;
}

/** Quoted unless it is a plain word, so that a name from a client cannot forge a line. */
function formatValue(value: unknown): string {
  return typeof value === 'string' && /^[\w./:@+-]+$/.test(value) ? value : JSON.stringify(value);
}
