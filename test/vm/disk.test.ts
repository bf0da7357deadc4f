/**
 * The product's promise, seen from a real Linux guest: a controller with two namespaces is found and says what it is,
 * a file system keeps its data over a reboot and over a restart of the target, and fio finds what it wrote.
 */

import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { doorbell } from '../helpers/rpc-process.ts';
import { Vm } from '../helpers/vm.ts';
import { makeDisks, namespaceDevice } from '../helpers/vm-disks.ts';

const CPUS = 2;
const MIB = 1024 * 1024;
const BLOCK_BYTES = 512;
/** Namespaces: 1 holds the file system, 2 is fio's. */
const FILE_SYSTEM = 1;
const RAW = 2;
const SIZES = [512 * MIB, 256 * MIB];
const FIO_JOBS = 2;
const FIO_JOB_MIB = 128;
/** The second run's transfers need PRP lists. */
const FIO_RUNS = [
  { engine: 'io_uring', sizes: '--bs=4k' },
  { engine: 'libaio', sizes: '--bssplit=512/10:4k/40:64k/40:256k/10' },
];
const FIO_TIMEOUT_MS = 240_000;
/** What the kernel says when a disk misbehaves. */
const TROUBLE =
  /(nvme|EXT4-fs|JBD2).*(timeout|abort|reset|error|fail|down|corrupt|invalid)|I\/O error/i;

const unavailable = Vm.available();
if (unavailable !== undefined && process.env.CI === 'true') {
  t.fail(unavailable);
} else if (unavailable !== undefined) {
  t.plan(0, unavailable);
} else {
  t.setTimeout(840_000);
  t.test('a guest uses two disks', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'doorbell-disk-'));
    const files = SIZES.map((size, index) => {
      const file = join(folder, `disk${index + 1}.img`);
      writeFileSync(file, '');
      truncateSync(file, size);
      return file;
    });
    const disks = makeDisks(files, folder);
    let vm: Vm | undefined;
    t.teardown(async () => {
      await vm?.kill();
      await disks.kill();
      if (!t.passing()) {
        t.comment(`${vm?.log() ?? ''}--- the disks\n${disks.log()}`);
      }
      rmSync(folder, { recursive: true });
    });
    const boot = async () => {
      await disks.start();
      vm = await Vm.boot({ cpus: CPUS, devices: disks.devices, drives: disks.drives });
      return vm;
    };

    const first = await boot();
    const seen = await identify(t, first, disks.model);
    const checksum = await fillFileSystem(first);
    await verifyWithFio(t, first);
    await smartLog(t, first);
    await first.succeed('umount /mnt');
    await expectNoTrouble(t, first);

    await first.reboot();
    t.equal(await readFileSystem(first), checksum, 'the data survives a reboot');
    await expectNoTrouble(t, first);
    await first.powerOff();
    if (disks.socket !== undefined) {
      await identifyFromOutside(t, disks.socket, seen);
    }

    await disks.stop();
    const second = await boot();
    t.equal(await readFileSystem(second), checksum, 'the data survives a restart of the target');
    const fsck = await second.run(`e2fsck -fn ${await namespaceDevice(second, FILE_SYSTEM)}`);
    t.equal(fsck.status, 0, 'the file system is clean', { output: fsck.output });
    await expectNoTrouble(t, second);
    await second.powerOff();
    await disks.stop();
  });
}

/** What nvme-cli gave: `id-ctrl`, and `id-ns` of each namespace. */
interface Seen {
  readonly controller: Readonly<Record<string, unknown>>;
  readonly namespaces: readonly Readonly<Record<string, unknown>>[];
}

/** Identify, as nvme-cli and the kernel see it. */
async function identify(t: Test, vm: Vm, model: RegExp): Promise<Seen> {
  const json = async (command: string) => JSON.parse(await vm.succeed(`${command} -o json`));

  for (const nsid of [FILE_SYSTEM, RAW]) {
    const device = await namespaceDevice(vm, nsid);
    t.match(await vm.succeed('nvme list'), `${device} `, `nvme list shows namespace ${nsid}`);
  }
  const controller = await json('nvme id-ctrl /dev/nvme0');
  t.match(controller.mn, model, 'the model number');
  t.ok(controller.sn.trim(), 'there is a serial number');
  t.ok(controller.nn >= SIZES.length, 'the controller has room for the namespaces');
  t.equal(controller.sqes, 0x66, 'submission queue entries of 64 bytes');
  t.equal(controller.cqes, 0x44, 'completion queue entries of 16 bytes');
  const namespaces: Seen['namespaces'][number][] = [];
  for (const [index, size] of SIZES.entries()) {
    const namespace = await json(`nvme id-ns /dev/nvme0 -n ${index + 1}`);
    t.equal(namespace.nsze, size / BLOCK_BYTES, `namespace ${index + 1} has its file's size`);
    t.equal(namespace.lbafs[namespace.flbas & 0xf].ds, 9, 'in blocks of 512 bytes');
    namespaces.push(namespace);
  }
  const queues = await vm.succeed('cat /sys/class/nvme/nvme0/queue_count');
  t.equal(queues, `${1 + CPUS}`, 'an I/O queue pair for each processor, and the admin queue');
  return { controller, namespaces };
}

/** `doorbell identify`, now that no guest is connected, gives what nvme-cli gave in the guest. */
async function identifyFromOutside(t: Test, socket: string, seen: Seen): Promise<void> {
  const { code, stdout, stderr } = await doorbell(['identify', socket, '--json']);
  t.equal(code, 0, 'doorbell identify', { stderr });
  const { controller, namespaces } = JSON.parse(stdout);
  // Each client gets a controller of its own. nvme-cli has its own names for what a power state has.
  const { cntlid, psds, ...fields } = seen.controller;
  for (const [name, value] of Object.entries(fields)) {
    t.strictSame(controller[name], value, `${name} of the controller`);
  }
  for (const [index, { vs, ...fields }] of seen.namespaces.entries()) {
    for (const [name, value] of Object.entries(fields)) {
      t.strictSame(namespaces[index][name], value, `${name} of namespace ${index + 1}`);
    }
  }
}

/** Makes a file system with a tree of files on namespace 1 and leaves it mounted. @returns the tree's checksum */
async function fillFileSystem(vm: Vm): Promise<string> {
  const device = await namespaceDevice(vm, FILE_SYSTEM);
  await vm.succeed(`mkfs.ext4 -q ${device} && mount ${device} /mnt && mkdir /mnt/tree`);
  await vm.succeed('dd if=/dev/urandom of=/tmp/random bs=1M count=24');
  await vm.succeed('cp /tmp/random /mnt/tree/ && cp -r /modules /mnt/tree/');
  const original = await vm.succeed('sha256sum </tmp/random');
  await vm.succeed(`sync && umount /mnt && mount ${device} /mnt`);
  const copy = await vm.succeed('sha256sum </mnt/tree/random');
  if (copy !== original) {
    throw new Error(`the copy reads differently after a remount: ${original} became ${copy}`);
  }
  return treeChecksum(vm);
}

function treeChecksum(vm: Vm): Promise<string> {
  return vm.succeed(
    'set -o pipefail; cd /mnt/tree && find . -type f | sort | xargs sha256sum | sha256sum',
  );
}

/** Mounts namespace 1, reads the tree again and unmounts. */
async function readFileSystem(vm: Vm): Promise<string> {
  await vm.succeed(`mount ${await namespaceDevice(vm, FILE_SYSTEM)} /mnt`);
  const checksum = await treeChecksum(vm);
  await vm.succeed('umount /mnt');
  return checksum;
}

/** Random reads and writes at depth on namespace 2, all of which fio reads again and compares. */
async function verifyWithFio(t: Test, vm: Vm): Promise<void> {
  const device = await namespaceDevice(vm, RAW);
  for (const { engine, sizes } of FIO_RUNS) {
    const output = await vm.succeed(
      `fio --name=verify --filename=${device} --rw=randrw ${sizes} --iodepth=32 --direct=1 ` +
        `--ioengine=${engine} --numjobs=${FIO_JOBS} --size=${FIO_JOB_MIB}M ` +
        `--offset_increment=${FIO_JOB_MIB}M --verify=crc32c --do_verify=1 --verify_fatal=1 ` +
        '--verify_state_save=0 --group_reporting --output-format=json',
      FIO_TIMEOUT_MS,
    );
    const [job] = JSON.parse(output.slice(output.indexOf('{'))).jobs;
    const { read, write } = job;
    t.equal(job.error, 0, `fio with ${engine} finds what it wrote`);
    t.ok(write.io_bytes > 0, 'it wrote');
    t.ok(read.io_bytes >= write.io_bytes, 'and read all of that again');
    t.comment(
      `${sizes}: ${write.total_ios} writes, ${read.total_ios} reads, ${job.job_runtime} ms`,
    );
  }
}

async function smartLog(t: Test, vm: Vm): Promise<void> {
  const smart = JSON.parse(await vm.succeed('nvme smart-log /dev/nvme0 -o json'));
  t.equal(smart.critical_warning, 0, 'no critical warning');
  t.equal(smart.media_errors, 0, 'no media errors');
  // In thousands of 512-byte units, rounded up (NVMe Base 2.0 §5.16.1.3).
  const writtenMin = (FIO_JOBS * FIO_JOB_MIB * MIB) / 4 / BLOCK_BYTES / 1000;
  t.ok(smart.data_units_written > writtenMin, 'data units written are counted', { smart });
  t.ok(smart.host_read_commands > 0 && smart.host_write_commands > 0, 'commands are counted');
}

async function expectNoTrouble(t: Test, vm: Vm): Promise<void> {
  t.notMatch(await vm.succeed('dmesg'), TROUBLE, 'the kernel saw no trouble');
}
