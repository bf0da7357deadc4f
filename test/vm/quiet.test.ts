/**
 * A Linux guest that cannot map the doorbells: it uses shadow doorbells, keeps its data, and while it does nothing, nothing wakes the
 * reactor.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { TestTarget } from '../helpers/target.ts';
import { Vm, vfioUserDevice } from '../helpers/vm.ts';
import { namespaceDevice } from '../helpers/vm-disks.ts';

const MIB = 1024 * 1024;
const IDLE_MS = 3000;
const FIO_TIMEOUT_MS = 120_000;

const unavailable = Vm.available();
if (unavailable !== undefined && process.env.CI === 'true') {
  t.fail(unavailable);
} else if (unavailable !== undefined) {
  t.plan(0, unavailable);
} else {
  t.setTimeout(400_000);
  t.test('a guest with shadow doorbells', async (t) => {
    const transport = { disableMappableBar0: true, shadowDoorbells: true };
    const target = await TestTarget.start(t, { transport });
    const { socket } = await target.serve(await target.file(target.image(64 * MIB)));
    const vm = await Vm.boot({ cpus: 2, devices: [vfioUserDevice(socket)] });
    t.teardown(async () => {
      await vm.kill();
      if (!t.passing()) {
        t.comment(vm.log());
      }
    });
    const device = await namespaceDevice(vm, 1);
    await vm.succeed(
      `fio --name=verify --filename=${device} --rw=randrw --bs=4k --size=16M --iodepth=16 ` +
        '--ioengine=io_uring --direct=1 --verify=crc32c --do_verify=1 --verify_fatal=1 ' +
        '--verify_state_save=0',
      FIO_TIMEOUT_MS,
    );
    t.pass('fio found what it wrote');
    await sleep(IDLE_MS);
    const before = target.pool.state(0).sleeps;
    await sleep(IDLE_MS);
    const wakeUps = target.pool.state(0).sleeps - before;
    t.ok(wakeUps <= 3, `${wakeUps} wake-ups of the reactor in ${IDLE_MS} ms`);
    await vm.succeed(`dd if=${device} of=/dev/null bs=4k count=100 iflag=direct`);
    t.ok(target.pool.state(0).sleeps > before, 'the guest wakes it');
    await vm.powerOff();
  });
}
