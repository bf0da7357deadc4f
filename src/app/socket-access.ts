/** Who may use the JSON-RPC socket: `--rpc-socket-mode` and `--rpc-socket-owner`, from their text to numbers. */
import { readFileSync } from 'node:fs';

/** Ids to give a file to; undefined: as it is. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

const MAX_ID = 0xffff_fffe;

/** An octal mode of read and write bits, like 0660. Throws an Error that says what is wrong. */
export function parseSocketMode(text: string): number {
  const mode = Number.parseInt(text, 8);
  if (!/^0?[0-7]{3}$/.test(text) || (mode & 0o600) !== 0o600 || (mode & 0o111) !== 0) {
    throw new Error('It must be an octal mode such as 600, 660 or 666.');
  }
  return mode;
}

/**
 * `user`, `user:group` or `:group`, names of this system's own files or numbers. Without a group it is the user's. Throws an Error
 * that says what is wrong.
 */
export function parseOwner(text: string): Owner {
  const [user, group, ...rest] = text.split(':');
  if (rest.length > 0 || (user === '' && (group ?? '') === '')) {
    throw new Error('It must be a user, user:group or :group.');
  }
  const account = user === '' ? undefined : findUser(user);
  return {
    uid: account?.uid ?? process.getuid?.() ?? 0,
    gid: (group ?? '') === '' ? (account?.gid ?? 0) : findGroup(group),
  };
}

function findUser(name: string): Owner {
  const entry = lookUp('/etc/passwd', name);
  const uid = numeric(entry?.[2] ?? name);
  if (uid === undefined) {
    throw new Error(`There is no user ${name} in /etc/passwd.`);
  }
  // A number without an entry owns its group of the same number.
  return { uid, gid: numeric(entry?.[3] ?? '') ?? uid };
}

function findGroup(name: string): number {
  const gid = numeric(lookUp('/etc/group', name)?.[2] ?? name);
  if (gid === undefined) {
    throw new Error(`There is no group ${name} in /etc/group.`);
  }
  return gid;
}

/** The fields of a line of passwd(5) or group(5), by name or number. */
function lookUp(path: string, name: string): string[] | undefined {
  const lines = readFileSync(path, 'utf8')
    .split('\n')
    .map((line) => line.split(':'));
  return (
    lines.find(([entry]) => entry === name) ??
    (numeric(name) === undefined ? undefined : lines.find((fields) => fields[2] === name))
  );
}

function numeric(text: string): number | undefined {
  const value = Number(text);
  return /^\d+$/.test(text) && value <= MAX_ID ? value : undefined;
}
