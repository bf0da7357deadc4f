/** Log lines for people: one JSON line of pino as text. Nothing that a peer chose can end a line or steer a terminal. */
import { pino } from 'pino';

/** Keys that every line has, or that are printed in a place of their own. */
const OWN_KEYS = new Set(['level', 'time', 'pid', 'hostname', 'msg', 'err', 'component']);

/** Control characters, line separators, and marks that turn the direction of the text round them. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what it is about
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** A JSON line as `12:34:56.789 info  component: message key=value`, and below it, indented, the stack of `err`. */
export function formatLine(line: string): string {
  const entry: Record<string, unknown> = JSON.parse(line);
  const level = pino.levels.labels[Number(entry.level)] ?? String(entry.level);
  let text = level.padEnd(5);
  if (entry.time !== undefined) {
    text = `${new Date(Number(entry.time)).toISOString().slice(11, 23)} ${text}`;
  }
  text += entry.component === undefined ? ' ' : ` ${entry.component}: `;
  text += neutralize(String(entry.msg ?? ''));
  for (const [key, value] of Object.entries(entry)) {
    if (!OWN_KEYS.has(key)) {
      text += ` ${key}=${formatValue(value)}`;
    }
  }
  const err = entry.err as { stack?: string; message?: string } | undefined;
  if (err !== undefined) {
    for (const row of String(err.stack ?? err.message).split('\n')) {
      text += `\n    ${neutralize(row)}`;
    }
  }
  return `${text}\n`;
}

/** Quoted unless it is a plain word, so that a name from a client cannot forge a line. */
function formatValue(value: unknown): string {
  return typeof value === 'string' && /^[\w./:@+-]+$/.test(value)
    ? value
    : neutralize(JSON.stringify(value));
}

function neutralize(text: string): string {
  return text.replace(UNSAFE, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
}
