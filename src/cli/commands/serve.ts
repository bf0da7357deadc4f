/** `doorbell serve`: runs a target until a signal ends it. */

import { type Command, Option } from 'commander';
import { parseCpuList, parseCpuMask } from '../../app/cpus.ts';
import { DEFAULTS } from '../../app/defaults.ts';
import { parseSize } from '../../app/size.ts';
import { type Owner, parseOwner, parseSocketMode } from '../../app/socket-access.ts';
import { type HttpAddress, parseHttpAddress, parseOrigin } from '../../http/address.ts';
import { LOG_FORMATS, LOG_LEVELS, type LogFormat, type LogLevel } from '../../util/log.ts';
import { integer, parsed, rpcSocketOption } from '../options.ts';
import { outliveReader } from '../output.ts';

const MAX_FD = 2 ** 31 - 1;

interface ServeFlags {
  readonly disk: string[];
  readonly config: string[];
  readonly defaultDisk?: string;
  readonly diskSize: number;
  readonly socketDir?: string;
  readonly rpcSocket: string;
  readonly stateDir?: string;
  readonly fd?: number;
  readonly rpcFd?: number;
  readonly rpcSocketMode?: number;
  readonly rpcSocketOwner?: Owner;
  readonly waitForRpc?: true;
  readonly cpumask?: number[];
  readonly cores?: number[];
  readonly spinUs: number;
  readonly maxSleepUs: number;
  readonly trapDoorbells?: true;
  readonly mapFileMemory?: true;
  readonly requireSharedMemory?: true;
  readonly direct?: true;
  readonly readonly?: true;
  readonly blockSize?: string;
  readonly http?: HttpAddress;
  readonly httpTokenFile?: string;
  readonly httpOrigin: string[];
  readonly stopTimeout: number;
  readonly logLevel: LogLevel;
  readonly logFormat?: LogFormat;
}

/** Adds `serve` to the program. */
export function addServe(program: Command): void {
  program
    .command('serve')
    .description('Serve disks to a VM. Without a disk, wait to be configured through JSON-RPC.')
    .addOption(
      new Option('-d, --disk <path>', 'a file or block device to serve; may be repeated')
        .argParser((path: string, paths: string[]) => [...paths, path])
        .default([], 'none'),
    )
    .option('--default-disk <file>', 'the file to serve if no --disk is given; made if absent')
    .addOption(
      new Option(
        '-c, --config <file>',
        "VMs and disks from a file, YAML or SPDK's JSON; may be repeated; SIGHUP reads it again",
      )
        .argParser((path: string, paths: string[]) => [...paths, path])
        .default([], 'none'),
    )
    .addOption(
      new Option('--disk-size <size>', 'size of a default disk that is made')
        .argParser(parsed(parseSize))
        .default(DEFAULTS.diskSize, '1G'),
    )
    .option(
      '--socket-dir <folder>',
      'folder of the vfio-user sockets that nothing else names (default: $XDG_RUNTIME_DIR/doorbell, or /run/doorbell)',
    )
    .addOption(rpcSocketOption('-r, --rpc-socket'))
    .option(
      '--state-dir <folder>',
      'keep the configuration here: changes made through JSON-RPC outlast a restart',
    )
    .addOption(
      new Option('--rpc-socket-mode <mode>', 'its mode, octal (default: 600)').argParser(
        parsed(parseSocketMode),
      ),
    )
    .addOption(
      new Option('--rpc-socket-owner <user[:group]>', 'whose it is (default: yours)').argParser(
        parsed(parseOwner),
      ),
    )
    .addOption(
      new Option(
        '--fd <n>',
        'a socket that is open already, for the VM: it listens or is connected',
      ).argParser(integer(3, MAX_FD)),
    )
    .addOption(
      new Option('--rpc-fd <n>', 'the same for JSON-RPC, instead of --rpc-socket').argParser(
        integer(3, MAX_FD),
      ),
    )
    .option(
      '--wait-for-rpc',
      'take options through JSON-RPC first; framework_start_init serves the disks',
    )
    .addOption(
      new Option(
        '-m, --cpumask <mask>',
        'CPUs of the reactors: 0x6 or [1,2] (default: all but one)',
      )
        .argParser(parsed(parseCpuMask))
        .conflicts('cores'),
    )
    .addOption(
      new Option('--cores <list>', 'the same as a list: 1,2 or 1-2').argParser(
        parsed(parseCpuList),
      ),
    )
    .addOption(
      new Option('--spin-us <n>', 'how long an idle reactor polls before it sleeps, in µs')
        .argParser(integer(0, 1_000_000_000))
        .default(DEFAULTS.spinUs),
    )
    .addOption(
      new Option('--max-sleep-us <n>', 'how long an idle reactor sleeps at most, in µs')
        .argParser(integer(1, 1_000_000))
        .default(DEFAULTS.maxSleepUs),
    )
    .option(
      '--trap-doorbells',
      'sleep without polling when idle: best for Linux guests, slow for those without shadow doorbells',
    )
    .option(
      '--map-file-memory',
      'map guest memory that is neither a memfd nor on tmpfs or hugetlbfs, too (NVDIMMs, memory-backend-file): trust the VMMs then',
    )
    .option(
      '--require-shared-memory',
      'refuse VMs whose memory is not shared; else they are served by messages, which is slow',
    )
    .option('--direct', 'bypass the page cache (O_DIRECT)')
    .option('--readonly', 'write protect the disks')
    .addOption(
      new Option(
        '--block-size <bytes>',
        'logical block size (default: 512, or what a device has)',
      ).choices(['512', '4096']),
    )
    .addOption(
      new Option(
        '--http <address>',
        'dashboard, metrics and JSON-RPC over HTTP at PORT (of this machine), ADDRESS:PORT or [IPV6]:PORT',
      ).argParser(parsed(parseHttpAddress)),
    )
    .option('--http-token-file <file>', 'ask HTTP clients for the token in this file (mode 0600)')
    .addOption(
      new Option('--http-origin <url>', 'where a reverse proxy serves it; may be repeated')
        .argParser((text: string, others: string[]) => [...others, parsed(parseOrigin)(text)])
        .default([], 'none'),
    )
    .addOption(
      new Option('--stop-timeout <seconds>', 'how long commands in flight may hold up the end')
        .argParser(integer(1, 86_400))
        .default(DEFAULTS.stopTimeout),
    )
    .addOption(
      new Option('--log-level <level>', 'what to log on stderr')
        .choices([...LOG_LEVELS])
        .default('info'),
    )
    .addOption(
      new Option('--log-format <format>', 'how (default: text on a terminal, else json)').choices([
        ...LOG_FORMATS,
      ]),
    )
    .addHelpText(
      'after',
      `
Examples:
  doorbell serve --default-disk disk.img          make a 1 GiB disk image, and serve it
  doorbell serve --disk root.img --disk /dev/sdb  two namespaces
  doorbell serve --config vms.yaml                what docs/configuration.md describes
  doorbell serve -r /var/tmp/spdk.sock            wait for SPDK's rpc.py

Ctrl-C stops cleanly; a second one at once.`,
    )
    .action(async (flags: ServeFlags, command: Command) => {
      refuseAlone(flags, command);
      // Loaded when needed: a client needs neither the addon nor the reactors.
      const { runTarget } = await import('../../app/main.ts');
      outliveReader();
      await runTarget(
        {
          config: flags.config,
          given: givenOptions(command),
          disks: flags.disk,
          defaultDisk: flags.defaultDisk,
          diskSize: flags.diskSize,
          socketDir: flags.socketDir,
          rpcSocket: flags.rpcSocket,
          stateDir: flags.stateDir,
          fd: flags.fd,
          rpcFd: flags.rpcFd,
          rpcAccess: { mode: flags.rpcSocketMode, owner: flags.rpcSocketOwner },
          waitForRpc: flags.waitForRpc,
          cpus: flags.cores ?? flags.cpumask,
          spinUs: flags.spinUs,
          maxSleepUs: flags.maxSleepUs,
          trapDoorbells: flags.trapDoorbells,
          mapFileMemory: flags.mapFileMemory,
          requireSharedMemory: flags.requireSharedMemory,
          stopTimeout: flags.stopTimeout,
          direct: flags.direct ?? false,
          readonly: flags.readonly ?? false,
          blockSize: flags.blockSize === undefined ? undefined : Number(flags.blockSize),
          http: flags.http && {
            address: flags.http,
            tokenFile: flags.httpTokenFile,
            origins: flags.httpOrigin,
          },
        },
        { level: flags.logLevel, format: flags.logFormat },
      );
    });
}

/** Options that say how another option is meant, without it; or beside one that makes them pointless. */
function refuseAlone(flags: ServeFlags, command: Command): void {
  const given = (name: string) => command.getOptionValueSource(name) === 'cli';
  if (given('diskSize') && flags.defaultDisk === undefined) {
    command.error('error: --disk-size is the size of a --default-disk, and there is none');
  }
  for (const [name, flag] of [
    ['httpTokenFile', '--http-token-file'],
    ['httpOrigin', '--http-origin'],
  ] as const) {
    if (given(name) && flags.http === undefined) {
      command.error(`error: ${flag} goes with --http, which is not given`);
    }
  }
  for (const [name, flag] of [
    ['rpcSocket', '--rpc-socket'],
    ['rpcSocketMode', '--rpc-socket-mode'],
    ['rpcSocketOwner', '--rpc-socket-owner'],
  ] as const) {
    if (given(name) && flags.rpcFd !== undefined) {
      command.error(`error: ${flag} does not go with --rpc-fd, a socket that is there already`);
    }
  }
}

/** Options of the target that the command line or the environment sets: configuration files do not change them. */
function givenOptions(command: Command): Set<string> {
  const names: Readonly<Record<string, readonly string[]>> = {
    rpcSocket: ['rpcSocket'],
    rpcSocketMode: ['rpcAccess'],
    rpcSocketOwner: ['rpcAccess'],
    cores: ['cpus', 'reactors'],
    cpumask: ['cpus', 'reactors'],
    spinUs: ['spinUs'],
    maxSleepUs: ['maxSleepUs'],
    trapDoorbells: ['trapDoorbells'],
    mapFileMemory: ['mapFileMemory'],
    requireSharedMemory: ['requireSharedMemory'],
    http: ['http'],
  };
  const given = Object.keys(names).filter((flag) =>
    ['cli', 'env'].includes(command.getOptionValueSource(flag) ?? ''),
  );
  return new Set(given.flatMap((flag) => names[flag]));
}
