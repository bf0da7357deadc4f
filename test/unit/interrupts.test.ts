/** Which eventfd each vector has: MSI-X while any of it is connected, else the pin, unless something keeps that quiet. */
import { closeSync, readdirSync } from 'node:fs';
import t, { type Test } from 'tap';
import { MAX_UNMASKS, UNMASK_PERIOD_MS } from '../../src/limits.ts';
import { native } from '../../src/native/index.ts';
import { Interrupts } from '../../src/pci/interrupts.ts';

const openFds = () => readdirSync('/proc/self/fd').length;

/** -1 stands for none. */
function closeNow(fds: readonly number[]): void {
  fds.filter((fd) => fd >= 0).forEach(closeSync);
}

function start(t: Test, vectors = 4) {
  let unmasked = 0;
  const onUnmask = () => {
    unmasked += 1;
  };
  const interrupts = new Interrupts({ msix: vectors, msi: 0 }, onUnmask, closeNow);
  t.teardown(() => closeNow(interrupts.release()));
  return { interrupts, unmasked: () => unmasked };
}

t.test('MSI-X and the pin', async (t) => {
  const { interrupts } = start(t);
  const [pin, a, b] = [native.eventfdCreate(), native.eventfdCreate(), native.eventfdCreate()];
  t.strictSame(interrupts.table(), [-1, -1, -1, -1]);
  t.strictSame(interrupts.setIntx(pin), [-1]);
  t.strictSame(interrupts.table(), [pin, pin, pin, pin], 'every vector pulls the pin');
  t.strictSame(interrupts.connect('msix', 1, [a, b]), [-1, -1]);
  t.strictSame(interrupts.table(), [-1, a, b, -1], 'one vector is enough to end that');
  t.strictSame(interrupts.connect('msix', 1, [undefined, a]), [a, b]);
  t.strictSame(interrupts.table(), [-1, -1, a, -1]);
  t.strictSame(interrupts.connect('msix', 2, [undefined]), [a]);
  t.strictSame(interrupts.table(), [pin, pin, pin, pin]);
  t.strictSame(interrupts.setIntx(undefined), [pin]);
  closeNow([pin, -1, a, b]);
});

t.test('MSI, of which a guest may grant fewer vectors than there are', async (t) => {
  const interrupts = new Interrupts({ msix: 0, msi: 4 }, () => {}, closeNow);
  const [pin, a, b] = [native.eventfdCreate(), native.eventfdCreate(), native.eventfdCreate()];
  t.strictSame(interrupts.table(), [-1, -1, -1, -1]);
  interrupts.setIntx(pin);
  t.ok(interrupts.pinIsFree);
  interrupts.connect('msi', 0, [a, b]);
  t.strictSame(interrupts.table(), [a, b, a, b], 'used in turn');
  t.notOk(interrupts.pinIsFree);
  t.equal(interrupts.describe().mode, 'msi');
  t.strictSame(interrupts.disconnect('msi'), [a, b, -1, -1]);
  t.strictSame(interrupts.table(), [pin, pin, pin, pin]);
  closeNow([a, b, ...interrupts.release()]);
});

t.test('a function with more vectors of MSI than of MSI-X', async (t) => {
  const interrupts = new Interrupts({ msix: 2, msi: 4 }, () => {}, closeNow);
  const [a, b] = [native.eventfdCreate(), native.eventfdCreate()];
  interrupts.connect('msix', 0, [a, b]);
  t.strictSame(interrupts.table(), [a, b, -1, -1]);
  closeNow(interrupts.release());
});

t.test('what keeps the pin quiet', async (t) => {
  const { interrupts } = start(t);
  const pin = native.eventfdCreate();
  interrupts.setIntx(pin);
  const quiet = [-1, -1, -1, -1];
  const loud = [pin, pin, pin, pin];
  interrupts.maskIntx(true);
  t.strictSame(interrupts.table(), quiet);
  interrupts.intxDisabled = true;
  interrupts.maskIntx(false);
  t.strictSame(interrupts.table(), quiet);
  interrupts.intxDisabled = false;
  t.strictSame(interrupts.table(), loud);
  interrupts.pinMask = 0b0101;
  t.strictSame(interrupts.table(), [-1, pin, -1, pin], 'INTMS, vector by vector');
  interrupts.pinMask = 0;
  t.strictSame(interrupts.table(), loud);
  const vector = native.eventfdCreate();
  interrupts.maskIntx(true);
  interrupts.pinMask = -1;
  interrupts.connect('msix', 0, [vector]);
  t.strictSame(interrupts.table(), [vector, -1, -1, -1], 'MSI-X does not care');
});

t.test('the eventfd that unmasks', async (t) => {
  const { interrupts, unmasked } = start(t);
  const pin = native.eventfdCreate();
  interrupts.setIntx(pin);
  const resample = native.eventfdCreate();
  interrupts.setResample(resample);
  interrupts.maskIntx(true);
  native.eventfdSignal(resample);
  while (unmasked() === 0) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.equal(interrupts.table()[0], pin);
  const before = openFds();
  interrupts.setResample(native.eventfdCreate());
  t.equal(openFds(), before, 'the old one is closed');
  interrupts.setResample(undefined);
  t.equal(openFds(), before - 1);
});

t.test('an eventfd that is always signalled is heard so many times in a period', async (t) => {
  const resample = native.eventfdCreate();
  let heard = 0;
  // As a semaphore with a great count, or a client that signals without end.
  const onUnmask = () => {
    heard += 1;
    native.eventfdSignal(resample);
  };
  const interrupts = new Interrupts({ msix: 1, msi: 0 }, onUnmask, closeNow);
  interrupts.setResample(resample);
  native.eventfdSignal(resample);
  const begin = performance.now();
  await new Promise((resolve) => setTimeout(resolve, 200));
  const periods = (performance.now() - begin) / UNMASK_PERIOD_MS + 1;
  t.ok(heard <= periods * MAX_UNMASKS, `${heard} times`);
  const before = heard;
  while (heard === before) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  t.pass('and goes on being heard');
  closeNow(interrupts.release());
  const after = heard;
  await new Promise((resolve) => setTimeout(resolve, 3 * UNMASK_PERIOD_MS));
  t.equal(heard, after, 'until it is let go');
});

t.test('everything is given back', async (t) => {
  const before = openFds();
  const interrupts = new Interrupts({ msix: 3, msi: 2 }, () => {}, closeNow);
  interrupts.connect('msix', 0, [native.eventfdCreate(), undefined, native.eventfdCreate()]);
  interrupts.connect('msi', 1, [native.eventfdCreate()]);
  interrupts.setIntx(native.eventfdCreate());
  interrupts.setResample(native.eventfdCreate());
  closeNow(interrupts.release());
  t.equal(openFds(), before);
  t.strictSame(interrupts.table(), [-1, -1, -1]);
  const fd = native.eventfdCreate();
  closeSync(fd);
  t.equal(openFds(), before);
});
