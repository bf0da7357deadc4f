/**
 * Where the polling threads of a target run: a load generator beside one of them on the same processor measures the scheduler. Found
 * through /proc, for any server of a UNIX socket whose process this user may look at.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { parseCpuList } from '../../app/cpus.ts';

export interface PinnedThread {
  readonly pid: number;
  readonly name: string;
  readonly cpu: number;
}

/** Inodes of the sockets that are bound to these paths. */
function socketInodes(paths: readonly string[]): Set<string> {
  const inodes = new Set<string>();
  for (const line of readFileSync('/proc/net/unix', 'utf8').split('\n').slice(1)) {
    // Num RefCount Protocol Flags Type St Inode Path
    const [, , , , , , inode, path] = line.trim().split(/\s+/);
    if (path !== undefined && paths.includes(path)) {
      inodes.add(inode);
    }
  }
  return inodes;
}

function hasSocket(pid: string, inodes: ReadonlySet<string>): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => {
      const socket = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`));
      return socket !== null && inodes.has(socket[1]);
    });
  } catch {
    // Not ours to look at, or gone meanwhile.
    return false;
  }
}

function pinnedThreads(pid: string): PinnedThread[] {
  const threads: PinnedThread[] = [];
  try {
    for (const tid of readdirSync(`/proc/${pid}/task`)) {
      const status = readFileSync(`/proc/${pid}/task/${tid}/status`, 'utf8');
      const cpus = parseCpuList(/^Cpus_allowed_list:\s+(\S+)/m.exec(status)?.[1] ?? '');
      if (cpus.length === 1) {
        const name = /^Name:\s+(.*)/m.exec(status)?.[1] ?? tid;
        threads.push({ pid: Number(pid), name, cpu: cpus[0] });
      }
    }
  } catch {
    // Gone meanwhile.
  }
  return threads;
}

/** Threads of the processes that serve these sockets that may run on one processor only; none if that cannot be found out. */
export function targetThreads(paths: readonly string[]): PinnedThread[] {
  let inodes: Set<string>;
  try {
    inodes = socketInodes(paths);
  } catch {
    return [];
  }
  if (inodes.size === 0) {
    return [];
  }
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids.filter((pid) => hasSocket(pid, inodes)).flatMap(pinnedThreads);
}
