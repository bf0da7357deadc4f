/**
 * `npm run bench:vm`: fio in a Linux guest, in turn on a Doorbell disk and on QEMU's own NVMe device (io_uring, ioeventfd) over an equal
 * file: IOPS, and what a command costs the host's processors. Options after `--`:
 *
 *   --runs N          of each load on each disk (5)
 *   --seconds S       of a run (3)
 *   --quick           one run of one second, no 128 KiB
 *   --accel kvm|tcg   what runs the guest (DOORBELL_VM_ACCEL, or else tcg: an emulated processor, which is most of what is measured)
 *   --folder PATH     for the two files, on the disk to be measured (bench/results)
 *
 * Prints a table, and writes bench/results/vm.json.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { formatTable } from '../src/cli/table.ts';
import { native } from '../src/native/index.ts';
import { Vm, vfioUserDevice } from '../test/helpers/vm.ts';
import { describeMachine } from './machine.ts';
import { rates, sample } from './process.ts';
import { quantity } from './report.ts';
import { median } from './stats.ts';
import { startTarget } from './target.ts';

const { values } = parseArgs({
  options: {
    runs: { type: 'string' },
    seconds: { type: 'string' },
    quick: { type: 'boolean', default: false },
    accel: { type: 'string' },
    folder: { type: 'string', default: 'bench/results' },
  },
});
const runs = Number(values.runs ?? (values.quick ? 1 : 5));
const seconds = Number(values.seconds ?? (values.quick ? 1 : 3));
if (values.accel !== undefined && values.accel !== 'kvm' && values.accel !== 'tcg') {
  throw new Error('--accel is kvm or tcg');
}
const accelerator = values.accel;

const FILE_BYTES = 256 * 2 ** 20;
const SERIAL = 'reference';
/** Over what a run takes. */
const PATIENCE_MS = 60_000;
/** fio's start in an emulated guest is not watched; nor is the end of a run, which is so much longer than what is watched. */
const START_MS = 1500;
const MARGIN_SECONDS = 2;

interface GuestLoad {
  readonly op: 'read' | 'write';
  readonly blockSize: '4k' | '128k';
  readonly depth: number;
}

const LOADS: readonly GuestLoad[] = (['4k', '128k'] as const)
  .filter((size) => size === '4k' || !values.quick)
  .flatMap((blockSize) =>
    [1, 32].flatMap((depth) =>
      (['read', 'write'] as const).map((op) => ({ op, blockSize, depth })),
    ),
  );

/** A run of fio on one of the disks. Times are of the host's processors, in µs a command. */
interface Run {
  readonly iops: number;
  /** All threads of QEMU, and of the target. */
  readonly hostUs: number;
  /** Without the threads that run the guest's processors: what the device costs. */
  readonly deviceUs: number;
}

const isVcpu = (name: string): boolean => /^CPU \d+\//.test(name);

interface Row extends GuestLoad {
  readonly doorbell: Run;
  readonly qemu: Run;
  /** Medians of the rounds' ratios. */
  readonly iopsRatio: number;
  readonly rounds: readonly { readonly doorbell: Run; readonly qemu: Run }[];
}

/** The guest's name of each controller's disk, by a word in the controller's model or serial number. */
async function guestDisk(vm: Vm, word: string): Promise<string> {
  const find = `grep -il '${word}' /sys/class/nvme/nvme*/model /sys/class/nvme/nvme*/serial 2>/dev/null`;
  const found = await vm.succeed(
    `for i in $(seq 200); do ${find} && [ -b /dev/nvme1n1 ] && exit; sleep 0.1; done; exit 1`,
  );
  const [, controller] = /\/(nvme\d+)\//.exec(found) ?? [];
  return `/dev/${controller}n1`;
}

async function fio(vm: Vm, disk: string, load: GuestLoad): Promise<number> {
  const { op, blockSize, depth } = load;
  const options = `--name=a --filename=${disk} --rw=rand${op} --bs=${blockSize} --iodepth=${depth}`;
  const how = `--ioengine=io_uring --direct=1 --time_based --runtime=${seconds + MARGIN_SECONDS}`;
  const output = await vm.succeed(
    `fio ${options} ${how} --output-format=json`,
    (seconds + MARGIN_SECONDS) * 1000 + PATIENCE_MS,
  );
  return JSON.parse(output.slice(output.indexOf('{'))).jobs[0][op].iops;
}

/** Runs a load, and watches processes while it is under way. */
async function watch(pids: readonly number[], load: () => Promise<number>): Promise<Run> {
  const running = load();
  await Promise.race([running, sleep(START_MS)]);
  const before = pids.map((pid) => sample(pid));
  await Promise.race([running, sleep(seconds * 1000)]);
  const after = pids.map((pid) => sample(pid));
  const iops = await running;
  const share = (wanted: (name: string) => boolean): number =>
    after.reduce((sum, usage, i) => sum + rates(before[i], usage, wanted).cpu, 0);
  return {
    iops,
    hostUs: (share(() => true) * 1e6) / iops,
    deviceUs: (share((name) => !isVcpu(name)) * 1e6) / iops,
  };
}

function medianRun(all: readonly Run[]): Run {
  const of = (key: keyof Run): number => median(all.map((run) => run[key]));
  return { iops: of('iops'), hostUs: of('hostUs'), deviceUs: of('deviceUs') };
}

function table(rows: readonly Row[]): string[] {
  const titles = ['load', 'doorbell IOPS', 'QEMU', 'ratio', 'host µs', 'QEMU', 'device µs', 'QEMU'];
  const columns = titles.map((title, i) => ({ title, align: i === 0 ? 'left' : 'right' }) as const);
  return formatTable(
    columns,
    rows.map(({ op, blockSize, depth, doorbell, qemu, iopsRatio }) => [
      `${op} ${blockSize}, depth ${depth}`,
      quantity(doorbell.iops),
      quantity(qemu.iops),
      iopsRatio.toFixed(2),
      ...[doorbell.hostUs, qemu.hostUs, doorbell.deviceUs, qemu.deviceUs].map((us) =>
        us.toFixed(1),
      ),
    ]),
  );
}

const unavailable = Vm.available();
if (unavailable !== undefined) {
  throw new Error(unavailable);
}
mkdirSync(values.folder, { recursive: true });
const files = ['vm-doorbell.img', 'vm-qemu.img'].map((name) => resolve(values.folder, name));
const rows: Row[] = [];
const [reactorCpu] = native.getAffinity();
const target = await startTarget({ cpus: [reactorCpu] });
let vm: Vm | undefined;
try {
  for (const file of files) {
    // Equal, and not sparse.
    writeFileSync(file, Buffer.alloc(FILE_BYTES, 0x5a));
  }
  const [ours, theirs] = files;
  await target.rpc('bdev_uring_create', { name: 'disk', filename: ours, block_size: 512 });
  vm = await Vm.boot({
    ...(accelerator !== undefined && { accelerator }),
    devices: [
      vfioUserDevice(await target.serve('disk')),
      { driver: 'nvme', serial: SERIAL, drive: 'disk', ioeventfd: true },
    ],
    drives: [{ id: 'disk', file: theirs, aio: 'io_uring' }],
  });
  const guest = vm;
  const disks = {
    doorbell: await guestDisk(guest, 'doorbell'),
    qemu: await guestDisk(guest, SERIAL),
  };
  const pids = [guest.pid, target.pid];
  for (const load of LOADS) {
    const rounds: Row['rounds'][number][] = [];
    for (let round = 0; round < runs; round++) {
      const doorbell = await watch(pids, () => fio(guest, disks.doorbell, load));
      const qemu = await watch(pids, () => fio(guest, disks.qemu, load));
      rounds.push({ doorbell, qemu });
    }
    rows.push({
      ...load,
      doorbell: medianRun(rounds.map(({ doorbell }) => doorbell)),
      qemu: medianRun(rounds.map(({ qemu }) => qemu)),
      iopsRatio: median(rounds.map(({ doorbell, qemu }) => doorbell.iops / qemu.iops)),
      rounds,
    });
    process.stderr.write(`${table(rows.slice(-1))[1]}\n`);
  }
  await guest.powerOff();
} catch (error) {
  process.stderr.write(vm?.log() ?? '');
  throw error;
} finally {
  await vm?.kill();
  await target.stop();
  for (const file of files) {
    rmSync(file, { force: true });
  }
}
process.stdout.write(`${table(rows).join('\n')}\n`);
mkdirSync('bench/results', { recursive: true });
const result = {
  machine: describeMachine(),
  accelerator: accelerator ?? process.env.DOORBELL_VM_ACCEL ?? 'tcg',
  runs,
  seconds,
  rows,
};
writeFileSync(join('bench/results', 'vm.json'), `${JSON.stringify(result, null, 2)}\n`);
