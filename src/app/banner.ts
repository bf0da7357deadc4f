/** What is printed once the target listens: where, and how to attach a VM. */

import { dirname, join } from 'node:path';

/** Quotes a word for a POSIX shell, if it needs that. */
export function shellQuote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

const GUEST_MEMORY = '2G';

/** The options that give a QEMU (10.1 or later) the disk. The guest's memory must be shared with us. */
export function qemuCommand(socketPath: string): string {
  const device = {
    driver: 'vfio-user-pci',
    socket: { type: 'unix', path: socketPath },
  };
  return [
    'qemu-system-x86_64 -accel kvm -accel tcg -cpu max \\',
    `  -m ${GUEST_MEMORY} -object memory-backend-memfd,id=mem,size=${GUEST_MEMORY},share=on \\`,
    '  -machine q35,memory-backend=mem \\',
    `  -device ${shellQuote(JSON.stringify(device))}`,
  ].join('\n');
}

/** The same for Cloud Hypervisor. */
export function cloudHypervisorCommand(socketPath: string): string {
  // Its option parser takes a value in double quotes as it is.
  const path = /[,"[\]]/.test(socketPath) ? `"${socketPath}"` : socketPath;
  return [
    `cloud-hypervisor --memory size=${GUEST_MEMORY},shared=on \\`,
    `  --user-device ${shellQuote(`socket=${path}`)}`,
  ].join('\n');
}

export interface Listening {
  /** Absent if there is none. */
  readonly rpcSocket: string | undefined;
  /** All that VMs can connect to. */
  readonly sockets?: readonly {
    readonly path: string;
    readonly nqn: string;
    readonly namespaces: number;
  }[];
  /** Absent if there are no disks yet. */
  readonly vfioUserSocket?: string | undefined;
  /** Absent if there is no HTTP server. */
  readonly httpUrl?: string | undefined;
  /** Absent: the target waits for framework_start_init. */
  readonly disks?:
    | readonly {
        readonly nsid: number;
        readonly path: string;
        readonly bytes: number;
      }[]
    | undefined;
}

/** Sockets that are listed; a target can have thousands. */
const MAX_LISTED = 20;

export function banner({
  rpcSocket,
  vfioUserSocket,
  httpUrl,
  disks,
  sockets = [],
}: Listening): string {
  const lines: string[] = [];
  const attached = vfioUserSocket ?? sockets[0]?.path;
  const option = rpcSocket === undefined ? '' : ` -s ${shellQuote(rpcSocket)}`;
  for (const { nsid, path, bytes } of disks ?? []) {
    lines.push(`namespace ${nsid}: ${path} (${formatBytes(bytes)})`);
  }
  if (vfioUserSocket !== undefined) {
    lines.push(`vfio-user:   ${vfioUserSocket}`);
  }
  if (vfioUserSocket === undefined) {
    for (const { path, nqn, namespaces } of sockets.slice(0, MAX_LISTED)) {
      const count = `${namespaces} disk${namespaces === 1 ? '' : 's'}`;
      lines.push(`vfio-user:   ${path} (${nqn}, ${count})`);
    }
    if (sockets.length > MAX_LISTED) {
      lines.push(`             and ${sockets.length - MAX_LISTED} more`);
    }
  }
  if (rpcSocket !== undefined) {
    lines.push(`JSON-RPC:    ${rpcSocket}`);
  }
  if (httpUrl !== undefined) {
    lines.push(`HTTP:        ${httpUrl}`);
  }
  if (disks === undefined) {
    lines.push('', 'Takes options through JSON-RPC, and goes on when it is told to:');
    lines.push(`  doorbell rpc framework_start_init${option}`);
  } else if (attached === undefined) {
    lines.push('', 'No disks yet. A VM with a RAM disk, through JSON-RPC:');
    lines.push(...recipe(option, rpcSocket).map((line) => `  ${line}`));
  } else {
    lines.push(
      '',
      `Attach ${sockets.length > 1 ? 'the first' : 'it'} to a VM with QEMU 10.1 or later:`,
      indent(qemuCommand(attached)),
    );
    lines.push('', 'or with Cloud Hypervisor:', indent(cloudHypervisorCommand(attached)));
  }
  return `${lines.join('\n')}\n`;
}

/** Commands that serve a first VM, beside the socket of JSON-RPC. */
function recipe(option: string, rpcSocket = 'rpc.sock'): string[] {
  const folder = join(dirname(rpcSocket), 'vm0');
  const nqn = 'nqn.2026-11.io.doorbell:vm0';
  const address = `listen_address.trtype=VFIOUSER ${shellQuote(`listen_address.traddr=${folder}`)}`;
  return [
    `mkdir -p -m 700 ${shellQuote(folder)}`,
    ...[
      'nvmf_create_transport trtype=VFIOUSER',
      'bdev_malloc_create name=ram0 block_size=512 num_blocks=2097152',
      `nvmf_create_subsystem nqn=${nqn} allow_any_host=true`,
      `nvmf_subsystem_add_ns nqn=${nqn} namespace.bdev_name=ram0`,
      `nvmf_subsystem_add_listener nqn=${nqn} ${address}`,
    ].map((call) => `doorbell rpc${option} ${call}`),
    `doorbell identify ${shellQuote(join(folder, 'cntrl'))}`,
  ];
}

function indent(text: string): string {
  return text.replaceAll(/^/gm, '  ');
}

function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let unit = 0;
  let value = bytes;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number(value.toFixed(1))} ${units[unit]}`;
}
