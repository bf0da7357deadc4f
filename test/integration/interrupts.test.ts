/** Interrupts: a completion always signals, where the client wants it at that moment. vfio-user: DEVICE_SET_IRQS; NVMe over PCIe 1.0 §3.5. */
import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import t, { type Test } from 'tap';
import type { NvmeClient } from '../../src/client/nvme.ts';
import { type FdPoll, native } from '../../src/native/index.ts';
import { AdminOpcode } from '../../src/spec/admin.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { Register } from '../../src/spec/registers.ts';
import { IrqSetAction, IrqSetData, PciIrq, PciRegion } from '../../src/spec/vfio-user.ts';
import { onlyOurs, startTarget } from '../helpers/any-target.ts';
import { createPair } from '../helpers/queues.ts';
import { Random } from '../helpers/random.ts';
import { MIB } from '../helpers/target.ts';
import { openFds } from '../helpers/vfio.ts';

const { FLUSH } = NvmOpcode;
const { INTX, MSIX } = PciIrq;
const { NONE } = IrqSetData;
const { MASK, UNMASK } = IrqSetAction;

/** Descriptors of this process, when those of earlier tests are closed: that happens in threads. */
async function steadyFds(): Promise<number> {
  let before = -1;
  let now = await openFds();
  while (now !== before) {
    before = now;
    await new Promise((resolve) => setTimeout(resolve, 200));
    now = await openFds();
  }
  return now;
}

/** A client's end of an interrupt. */
class Signal {
  readonly fd = native.eventfdCreate();
  /** Times it was seen signalled. */
  count = 0;
  readonly #poll: FdPoll;
  #wake = () => {};

  constructor(t: Test, onSignal = () => {}) {
    this.#poll = new native.FdPoll(this.fd, () => {
      if (native.eventfdRead(this.fd) > 0) {
        this.count += 1;
        onSignal();
        this.#wake();
      }
    });
    this.#poll.start(true, false);
    t.teardown(() => this.close());
  }

  /** Resolves when it was signalled more than `seen` times. */
  async after(seen: number): Promise<void> {
    while (this.count <= seen) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  #closed = false;

  close(): void {
    if (!this.#closed) {
      this.#closed = true;
      this.#poll.close();
      closeSync(this.fd);
    }
  }
}

async function start(t: Test, reactors = 1) {
  const target = await startTarget(t, { reactors });
  const bdevs = [await target.malloc(MIB), await target.file(target.image(MIB))];
  return target.connect(await target.serve(...bdevs));
}

const connect = (client: NvmeClient, index: number, vector: number, signal?: Signal) =>
  signal === undefined
    ? client.vfio.setIrqs(index, IrqSetData.EVENTFD | IrqSetAction.TRIGGER, vector, 1)
    : client.vfio.connectIrqs(index, vector, [signal.fd]);

/** All that the reactors had to do for this client before is done: they say so before memory goes. */
async function settle({ vfio, memory }: NvmeClient): Promise<void> {
  await vfio.dmaMap({ iova: 0x1000, size: 0x1000, fd: memory.fd });
  await vfio.dmaUnmap(0x1000, 0x1000);
  await new Promise((resolve) => setImmediate(resolve));
}

t.test('each vector has its own eventfd, connected one by one', async (t) => {
  const client = await start(t, 2);
  const signals = Array.from({ length: 4 }, () => new Signal(t));
  for (const [vector, signal] of signals.entries()) {
    await connect(client, MSIX, vector, signal);
  }
  const pairs = [
    await createPair(client, { qid: 1, depth: 8, vector: 1 }),
    await createPair(client, { qid: 2, depth: 8, vector: 2 }),
    await createPair(client, { qid: 3, depth: 8, vector: 3 }),
  ];
  await signals[0].after(0);
  await settle(client);
  for (const [i, pair] of pairs.entries()) {
    const before = signals.map(({ count }) => count);
    for (const nsid of [1, 2]) {
      const seen = signals[i + 1].count;
      assert.equal((await pair.execute({ opcode: FLUSH, nsid })).status, 0);
      await signals[i + 1].after(seen);
    }
    const more = signals.map(({ count }, vector) => count - before[vector]);
    t.strictSame(
      more.map((count) => count > 0),
      [0, 1, 2, 3].map((vector) => vector === i + 1),
      `vector ${i + 1} alone`,
    );
  }
});

t.test('a queue without interrupts, and vectors that are shared', async (t) => {
  const client = await start(t);
  const shared = new Signal(t);
  await connect(client, MSIX, 5, shared);
  const quiet = await createPair(client, { qid: 1, depth: 8 });
  for (let i = 0; i < 10; i++) {
    await quiet.execute({ opcode: FLUSH, nsid: 1 });
  }
  await settle(client);
  t.equal(shared.count, 0);
  for (const qid of [2, 3]) {
    const pair = await createPair(client, { qid, depth: 8, vector: 5 });
    const seen = shared.count;
    await pair.execute({ opcode: FLUSH, nsid: 1 });
    await shared.after(seen);
  }
  t.ok(shared.count >= 2);
});

for (const nsid of [1, 2]) {
  t.test(
    `eventfds are replaced while I/O runs on ${nsid === 1 ? 'malloc' : 'a file'}`,
    async (t) => {
      const random = new Random();
      t.comment(`SEED=${random.seed}`);
      const client = await start(t);
      // Polled only when an interrupt came: one that is lost stops the show.
      let poll = () => {};
      let signal = new Signal(t, () => poll());
      await connect(client, MSIX, 1, signal);
      const pair = await createPair(client, { qid: 1, depth: 16, vector: 1, interrupts: true });
      let completed = 0;
      let stopped = false;
      const submit = (count: number) => {
        for (let i = 0; i < count; i++) {
          pair.push(0, FLUSH, nsid, 0, 0);
        }
        pair.ring();
      };
      let idle = () => {};
      poll = () => {
        const count = pair.poll();
        completed += count;
        if (stopped && pair.inflight === 0) {
          idle();
        } else if (count > 0 && !stopped) {
          submit(count);
        }
      };
      submit(8);
      for (let move = 0; move < 100; move++) {
        const next = new Signal(t, () => poll());
        const before = completed;
        if (random.chance(0.3)) {
          await connect(client, MSIX, 1);
        }
        await connect(client, MSIX, 1, next);
        // The old one is not signalled any more: what came there before is looked at once more.
        if (native.eventfdRead(signal.fd) > 0) {
          poll();
        }
        signal.close();
        signal = next;
        while (completed === before) {
          await new Promise((resolve) => setImmediate(resolve));
        }
      }
      const last = new Promise<void>((resolve) => {
        idle = resolve;
      });
      stopped = true;
      await last;
      t.ok(completed >= 100);
    },
  );
}

t.test('INTx until MSI-X is connected, and again after', async (t) => {
  const client = await start(t);
  const pin = new Signal(t);
  await connect(client, INTX, 0, pin);
  const pair = await createPair(client, { qid: 1, depth: 16, vector: 1 });
  await pin.after(0);
  const flush = async (signal: Signal) => {
    const seen = signal.count;
    assert.equal((await pair.execute({ opcode: FLUSH, nsid: 2 })).status, 0);
    await signal.after(seen);
  };
  await flush(pin);
  const vector = new Signal(t);
  await connect(client, MSIX, 1, vector);
  await settle(client);
  const seen = pin.count;
  await flush(vector);
  await flush(vector);
  t.equal(pin.count, seen, 'the pin is quiet');
  await client.vfio.disableIrqs(MSIX);
  await flush(pin);
  const quiet = vector.count;
  await flush(pin);
  t.equal(vector.count, quiet, 'the vector is quiet');
  await client.vfio.disableIrqs(INTX);
  const both = [pin.count, vector.count];
  await pair.execute({ opcode: FLUSH, nsid: 1 });
  await settle(client);
  t.strictSame([pin.count, vector.count], both, 'nothing is connected');
});

/** What keeps the pin quiet, and what lets it speak again. */
const QUIETS: Readonly<
  Record<string, { mask(c: NvmeClient): Promise<unknown>; unmask(c: NvmeClient): Promise<unknown> }>
> = {
  'vfio-user mask': {
    mask: ({ vfio }) => vfio.setIrqs(INTX, NONE | MASK, 0, 1),
    unmask: ({ vfio }) => vfio.setIrqs(INTX, NONE | UNMASK, 0, 1),
  },
  'interrupt disable in the PCI command register': {
    mask: ({ vfio }) => vfio.regionWrite(PciRegion.CONFIG, 4, Uint8Array.of(0x06, 0x04)),
    unmask: ({ vfio }) => vfio.regionWrite(PciRegion.CONFIG, 4, Uint8Array.of(0x06, 0x00)),
  },
  'its upper byte alone': {
    mask: ({ vfio }) => vfio.regionWrite(PciRegion.CONFIG, 5, Uint8Array.of(0x04)),
    unmask: ({ vfio }) => vfio.regionWrite(PciRegion.CONFIG, 5, Uint8Array.of(0x00)),
  },
  'INTMS and INTMC': {
    mask: (client) => client.writeRegister(Register.offset.intms, 0xffff_ffff),
    unmask: (client) => client.writeRegister(Register.offset.intmc, 0xffff_ffff),
  },
};

for (const [name, { mask, unmask }] of Object.entries(QUIETS)) {
  t.test(`${name}: what is pending signals when it ends`, async (t) => {
    const client = await start(t);
    const pin = new Signal(t);
    await connect(client, INTX, 0, pin);
    const pair = await createPair(client, { qid: 1, depth: 16, vector: 0, interrupts: true });
    await settle(client);
    await mask(client);
    await settle(client);
    const seen = pin.count;
    for (const nsid of [1, 2]) {
      pair.push(0, FLUSH, nsid, 0, 0);
    }
    pair.ring();
    // Not consumed: the completions stay pending.
    while ((pair.place.cq[4 * 1 + 3] & 0x1_0000) === 0) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    await settle(client);
    t.equal(pin.count, seen, 'quiet');
    await unmask(client);
    await pin.after(seen);
    t.equal(pair.poll(), 2);
    await settle(client);
    await mask(client);
    const after = pin.count;
    await unmask(client);
    await settle(client);
    t.equal(pin.count, after, 'nothing was pending');
  });
}

t.test('the eventfd that unmasks INTx', async (t) => {
  const client = await start(t);
  const pin = new Signal(t);
  const resample = native.eventfdCreate();
  t.teardown(() => closeSync(resample));
  await connect(client, INTX, 0, pin);
  const { EVENTFD } = IrqSetData;
  await client.vfio.setIrqs(INTX, EVENTFD | UNMASK, 0, 1, [resample]);
  const pair = await createPair(client, { qid: 1, depth: 16, vector: 0, interrupts: true });
  for (let round = 0; round < 20; round++) {
    await client.vfio.setIrqs(INTX, NONE | MASK, 0, 1);
    await settle(client);
    const seen = pin.count;
    pair.push(0, FLUSH, 1 + (round % 2), 0, 0);
    pair.ring();
    await settle(client);
    t.equal(pin.count, seen);
    native.eventfdSignal(resample);
    await pin.after(seen);
    while (pair.inflight > 0) {
      pair.poll();
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
});

t.test('vectors that the client fires itself', async (t) => {
  const client = await start(t);
  const signals = [new Signal(t), new Signal(t), new Signal(t)];
  await client.vfio.connectIrqs(
    MSIX,
    0,
    signals.map(({ fd }) => fd),
  );
  await client.vfio.triggerIrqs(MSIX, 1, 2);
  await Promise.all([signals[1].after(0), signals[2].after(0)]);
  await settle(client);
  t.strictSame(
    signals.map(({ count }) => count),
    [0, 1, 1],
  );
});

t.test('admin completions signal vector 0', async (t) => {
  const client = await start(t);
  const signal = new Signal(t);
  await connect(client, MSIX, 0, signal);
  for (let i = 0; i < 20; i++) {
    const seen = signal.count;
    await client.admin.execute({ opcode: AdminOpcode.KEEP_ALIVE });
    await signal.after(seen);
  }
  // A completion that nobody has looked at is signalled to an eventfd that comes later.
  await client.vfio.disableIrqs(MSIX);
  const late = new Signal(t);
  const waiting = client.admin.execute({ opcode: AdminOpcode.KEEP_ALIVE });
  await client.readRegister(0);
  await connect(client, MSIX, 0, late);
  await waiting;
  t.equal(signal.count, 20);
});

t.test('no descriptor is kept', { skip: onlyOurs }, async (t) => {
  const client = await start(t);
  const signals = Array.from({ length: 65 }, () => new Signal(t));
  const fds = signals.map(({ fd }) => fd);
  const before = await steadyFds();
  for (let round = 0; round < 10; round++) {
    await client.vfio.connectIrqs(MSIX, 0, fds);
    await connect(client, INTX, 0, signals[0]);
    await client.vfio.setIrqs(INTX, IrqSetData.EVENTFD | UNMASK, 0, 1, [fds[1]]);
    await connect(client, MSIX, 3, signals[4]);
    await connect(client, MSIX, 3);
  }
  t.equal(await openFds(before + 64 + 2), before + 64 + 2, 'one a vector that is connected');
  await client.vfio.disableIrqs(MSIX);
  await client.vfio.disableIrqs(INTX);
  await client.vfio.setIrqs(INTX, IrqSetData.EVENTFD | UNMASK, 0, 1);
  t.equal(await openFds(before), before);
});
