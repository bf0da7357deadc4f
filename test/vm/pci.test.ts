/** The devices of examples/pci in a Linux guest: a card with the kernel's own driver, and edu beside QEMU's. */
import t, { type Test } from 'tap';
import { PciExample } from '../helpers/pci-example.ts';
import { type Device, Vm, vfioUserDevice } from '../helpers/vm.ts';

/** Memory that the kernel leaves alone, for the device to read and write: an address, and that of the same page's second half. */
const RESERVED = '0x8000000';
const RESERVED_HALF = '0x8000800';

const INPUTS = 16;

async function boot(t: Test, devices: readonly Device[], kernelArgs?: string): Promise<Vm> {
  const vm = await Vm.boot({ devices, ...(kernelArgs !== undefined && { kernelArgs }) });
  t.teardown(async () => {
    await vm.kill();
    if (!t.passing()) t.comment(vm.log());
  });
  return vm;
}

/**
 * What a program for the edu device does, as one line of shell: registers by /dev/mem, interrupts by uio_pci_generic. Its output is the same whoever
 * made the device.
 */
const EDU_PROGRAM = [
  'set -e',
  'echo "1234 11e8" > /sys/bus/pci/drivers/uio_pci_generic/new_id',
  'dev=$(dirname /sys/bus/pci/drivers/uio_pci_generic/0000:*/uio)',
  'bar=$(head -1 $dev/resource | cut -d" " -f1)',
  // Memory, bus master, and INTx not disabled.
  'on() { printf "\\006\\000" | dd of=$dev/config bs=1 seek=4 conv=notrunc 2>/dev/null; }',
  'at() { printf 0x%x $((bar + $1)); }',
  'get() { devmem $(at $1) 32; }',
  'put() { devmem $(at $1) 32 $2; }',
  'wide() { devmem $(at $1) 64 $2; }',
  'exec 3</dev/uio0',
  'irq() { dd bs=4 count=1 <&3 2>/dev/null | od -An -tu4; }',
  'on',
  'echo id $(get 0)',
  'put 4 0x12345678',
  'echo live $(get 4)',
  'echo nothing $(get 0x40)',
  'put 8 12',
  'while [ $(( $(get 0x20) & 1 )) = 1 ]; do :; done',
  'echo factorial $(get 8)',
  'put 0x20 0x80',
  'put 8 5',
  'echo interrupt $(irq) status $(get 0x24) factorial $(get 8)',
  'put 0x64 1',
  'on',
  'put 0x60 0x1234',
  'echo interrupt $(irq) status $(get 0x24)',
  'put 0x64 0x1234',
  'on',
  `devmem ${RESERVED} 64 0x1122334455667788`,
  `wide 0x80 ${RESERVED}`,
  'wide 0x88 0x40000',
  'wide 0x90 8',
  'put 0x98 5',
  'echo interrupt $(irq) status $(get 0x24)',
  'put 0x64 0x100',
  'on',
  'wide 0x80 0x40000',
  `wide 0x88 ${RESERVED_HALF}`,
  'put 0x98 3',
  'while [ $(( $(get 0x98) & 1 )) = 1 ]; do :; done',
  `echo memory $(devmem ${RESERVED_HALF} 64) status $(get 0x24)`,
].join('; ');

const EDU_OUTPUT = [
  'id 0x010000ED',
  'live 0xEDCBA987',
  'nothing 0xFFFFFFFF',
  'factorial 0x1C8CFC00',
  'interrupt 1 status 0x00000001 factorial 0x00000078',
  'interrupt 2 status 0x00001234',
  'interrupt 3 status 0x00000100',
  'memory 0x1122334455667788 status 0x00000000',
].join('\n');

const unavailable = Vm.available();
if (unavailable !== undefined && process.env.CI === 'true') {
  t.fail(unavailable);
} else if (unavailable !== undefined) {
  t.plan(0, unavailable);
} else {
  t.setTimeout(600_000);

  t.test('a GPIO card with the kernel’s driver', async (t) => {
    const card = await PciExample.start(t, 'gpio-card');
    const vm = await boot(t, [vfioUserDevice(card.path)]);
    const chip = await vm.succeed('gpiodetect');
    t.match(chip, /^gpiochip0 \[.*\] \(32 lines\)$/m, chip);
    const input = (n: number) => vm.succeed(`gpioget --numeric -c gpiochip0 ${16 + n}`);
    t.equal(await input(3), '0');
    card.say('3=1');
    t.equal(await input(3), '1');
    card.say('15=1');
    t.equal(await input(15), '1');
    t.equal(await input(14), '0');
    await vm.succeed('gpioset -t0 -c gpiochip0 0=1 9=1');
    await card.line(/^outputs 0x0201/);
    t.pass('outputs arrive');

    // The card does not say which input changed: the driver tells of all that are watched. It crashes Linux 6.12 if not all are (regmap_irq_thread
    // hands inputs without a number to interrupt 0).
    const lines = Array.from({ length: INPUTS }, (_, n) => 16 + n).join(' ');
    await vm.succeed(
      `gpiomon -n ${4 * INPUTS} -e both -F "%e %o" -c gpiochip0 ${lines} >/tmp/edges 2>&1 & echo $! >/tmp/monitor; sleep 2`,
    );
    for (const level of [1, 0, 1, 0]) {
      card.say(`5=${level}`);
      await vm.succeed('sleep 0.5');
    }
    const edges = await vm.succeed(
      'for i in $(seq 50); do kill -0 $(cat /tmp/monitor) 2>/dev/null || break; sleep 0.1; done; grep " 21$" /tmp/edges',
    );
    t.equal(edges, ['1 21', '2 21', '1 21', '2 21'].join('\n'), 'edges interrupt');
    const interrupts = await vm.succeed('grep IO-APIC.*0000:00:01.0 /proc/interrupts');
    t.match(interrupts, /^ *\d+: +4 /, interrupts);
    await vm.powerOff();
    t.equal(await card.stop(), 0);
  });

  t.test('edu, ours and QEMU’s: the same program, the same output', async (t) => {
    const edu = await PciExample.start(t, 'edu');
    const reserve = `memmap=64K$${RESERVED}`;
    const run = async (device: Device) => {
      const vm = await boot(t, [device], reserve);
      const output = await vm.succeed(EDU_PROGRAM, 120_000);
      await vm.powerOff();
      return output;
    };
    t.equal(await run(vfioUserDevice(edu.path)), EDU_OUTPUT, 'ours');
    t.equal(await run({ driver: 'edu' }), EDU_OUTPUT, 'QEMU’s');
    t.equal(await edu.stop(), 0);
  });
}
