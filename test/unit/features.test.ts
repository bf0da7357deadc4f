/** Features: what they are, what they may be set to, what a reset makes of them. NVMe Base 2.0 §5.14, §5.27. */
import t from 'tap';
import type { AdminContext } from '../../src/nvme/admin/command.ts';
import { FEATURE_COMMANDS } from '../../src/nvme/admin/features.ts';
import { Features } from '../../src/nvme/features/state.ts';
import type { ControllerConfig, ControllerHost } from '../../src/nvme/host.ts';
import { AdminOpcode } from '../../src/spec/admin.ts';
import { Fid } from '../../src/spec/features.ts';
import { Sqe, StatusField } from '../../src/spec/nvme.ts';

const OK = 0;
const INVALID_FIELD = 0x4002;
const NOT_SAVEABLE = 0x410d;
const SEQUENCE_ERROR = 0x400c;
const TIMEOUT_INVALID = 0x401a;
const INVALID_NAMESPACE = 0x400b;
const NOT_OF_NAMESPACES = 0x410f;
const ALL = 0xffff_ffff;
const DEFAULT = 1 << 8;
const SAVED = 2 << 8;
const CAPABILITIES = 3 << 8;
const SAVE = 1 << 31;

/** Get and Set Features of a controller with eight queue pairs and 32 namespaces. */
class Host {
  readonly features: Features;
  #queuesExist = false;
  readonly #context: AdminContext;

  constructor() {
    this.features = new Features(8, () => this.#queuesExist);
    const context: Partial<AdminContext> = {
      features: this.features,
      config: { maxNamespaces: 32 } as ControllerConfig,
      host: {
        setWriteThrough: async () => {},
        setCoalescing: async () => {},
        nameHost: async () => {},
      } as Partial<ControllerHost> as ControllerHost,
      keepAlive: () => {},
      checkHealth: () => {},
    };
    this.#context = context as AdminContext;
  }

  #run(opcode: number, cdw10: number, cdw11: number, nsid: number) {
    const command = FEATURE_COMMANDS.find((each) => each.opcode === opcode)!;
    const entry = Sqe.encode({ opcode, nsid, cdw10: cdw10 >>> 0, cdw11: cdw11 >>> 0 });
    const outcome = command.run(this.#context, Sqe.read(new DataView(entry.buffer)));
    if (outcome === 'parked') {
      throw new Error('a feature is parked');
    }
    if (outcome instanceof Promise) {
      return { status: OK, dw0: 0 };
    }
    return { status: outcome.status & ~StatusField.mask.more, dw0: outcome.dw0 };
  }

  get(cdw10: number, cdw11: number, nsid = nsidOf(cdw10)) {
    return this.#run(AdminOpcode.GET_FEATURES, cdw10, cdw11, nsid);
  }

  set(cdw10: number, cdw11: number, queuesExist = false, nsid = nsidOf(cdw10)) {
    this.#queuesExist = queuesExist;
    return this.#run(AdminOpcode.SET_FEATURES, cdw10, cdw11, nsid);
  }

  get queues() {
    return this.features.queues.value;
  }

  reset() {
    this.features.reset();
  }
}

/** There is a value for each namespace of this one. */
const nsidOf = (cdw10: number) => ((cdw10 & 0xff) === Fid.ERROR_RECOVERY ? 1 : 0);

const features = () => new Host();

/** Every feature, its default, another value it can have. */
const known: readonly (readonly [number, number, number])[] = [
  [Fid.ARBITRATION, 7, 0x0102_0303],
  [Fid.TEMPERATURE_THRESHOLD, 343, 350],
  [Fid.ERROR_RECOVERY, 0, 100],
  [Fid.VOLATILE_WRITE_CACHE, 1, 0],
  [Fid.INTERRUPT_COALESCING, 0, 0x0a0a],
  [Fid.ASYNC_EVENT_CONFIG, 0, 0x101],
  [Fid.KEEP_ALIVE_TIMER, 0, 15_000],
];

t.test('set, get, default, reset', async (t) => {
  for (const [fid, initial, other] of known) {
    const f = features();
    t.strictSame(f.get(fid, 0), { status: OK, dw0: initial }, `FID ${fid}`);
    t.strictSame(f.set(fid, other, false), { status: OK, dw0: 0 });
    t.strictSame(f.get(fid, 0), { status: OK, dw0: other });
    t.strictSame(f.get(fid | DEFAULT, 0), { status: OK, dw0: initial });
    t.strictSame(f.get(fid | SAVED, 0), { status: OK, dw0: initial }, 'nothing is saved');
    const namespace = fid === Fid.ERROR_RECOVERY ? 2 : 0;
    t.strictSame(f.get(fid | CAPABILITIES, 0), { status: OK, dw0: 4 | namespace }, 'changeable');
    t.strictSame(f.set(fid | SAVE, other, false), { status: NOT_SAVEABLE, dw0: 0 });
    f.reset();
    t.strictSame(f.get(fid, 0), { status: OK, dw0: initial });
  }
});

t.test('features that there are not', async (t) => {
  const f = features();
  const all: number[] = f.features.all.map(({ fid }) => fid);
  for (let fid = 0; fid < 256; fid++) {
    if (!all.includes(fid)) {
      t.equal(f.get(fid, 0).status, INVALID_FIELD, `get ${fid}`);
      t.equal(f.set(fid, 0, false).status, INVALID_FIELD, `set ${fid}`);
    }
  }
  for (const select of [4, 5, 6, 7]) {
    t.equal(f.get(Fid.ARBITRATION | (select << 8), 0).status, INVALID_FIELD, `select ${select}`);
  }
});

t.test('number of queues', async (t) => {
  const f = features();
  const fid = Fid.NUMBER_OF_QUEUES;
  t.equal(f.queues, 8);
  t.strictSame(f.get(fid, 0), { status: OK, dw0: 0x0007_0007 });
  t.strictSame(f.set(fid, 0x0001_0003, false), { status: OK, dw0: 0x0003_0003 });
  t.equal(f.queues, 4);
  t.strictSame(f.set(fid, 0x00ff_00ff, false), { status: OK, dw0: 0x0007_0007 });
  t.strictSame(f.set(fid, 0, false), { status: OK, dw0: 0 });
  t.equal(f.queues, 1);
  t.equal(f.set(fid, 1, true).status, SEQUENCE_ERROR);
  t.equal(f.set(fid, 0xffff, false).status, INVALID_FIELD);
  t.equal(f.set(fid, (0xffff << 16) >>> 0, false).status, INVALID_FIELD);
  t.equal(f.queues, 1);
  f.reset();
  t.equal(f.queues, 8);
});

t.test('interrupt vectors: one a queue, and the admin queue', async (t) => {
  const f = features();
  const fid = Fid.INTERRUPT_VECTOR_CONFIG;
  const uncoalesced = 1 << 16;
  t.strictSame(f.get(fid, 8), { status: OK, dw0: 8 });
  t.equal(f.get(fid, 9).status, INVALID_FIELD);
  t.equal(f.set(fid, 9, false).status, INVALID_FIELD);
  t.equal(f.set(fid, 3 | uncoalesced, false).status, OK);
  t.strictSame(f.get(fid, 3), { status: OK, dw0: 3 | uncoalesced });
  t.strictSame(f.get(fid, 4), { status: OK, dw0: 4 });
  t.strictSame(f.get(fid | DEFAULT, 3), { status: OK, dw0: 3 });
  t.equal(f.set(fid, 3, false).status, OK);
  t.strictSame(f.get(fid, 3), { status: OK, dw0: 3 });
});

t.test('temperature thresholds', async (t) => {
  const f = features();
  const fid = Fid.TEMPERATURE_THRESHOLD;
  const under = 1 << 20;
  const sensor = (n: number) => n << 16;
  t.equal(f.set(fid, 300 | under, false).status, OK);
  t.strictSame(f.get(fid, under), { status: OK, dw0: 300 });
  t.strictSame(f.get(fid, 0), { status: OK, dw0: 343 }, 'the other threshold is another');
  t.strictSame(f.get(fid | DEFAULT, under), { status: OK, dw0: 0 });
  t.equal(f.set(fid, 340 | sensor(15), false).status, OK, 'all sensors');
  t.strictSame(f.get(fid, 0), { status: OK, dw0: 340 });
  t.equal(f.set(fid, 340 | sensor(1), false).status, INVALID_FIELD, 'there is no sensor 1');
  t.equal(f.get(fid, sensor(1)).status, INVALID_FIELD);
  t.equal(f.set(fid, 340 | (2 << 20), false).status, INVALID_FIELD, 'reserved type');
});

t.test('write cache, power states, events, Keep Alive', async (t) => {
  const f = features();
  t.equal(f.features.writeCache, true);
  f.set(Fid.VOLATILE_WRITE_CACHE, 0, false);
  t.equal(f.features.writeCache, false);
  f.reset();
  t.equal(f.features.writeCache, true);
  t.equal(f.set(Fid.POWER_MANAGEMENT, 0, false).status, OK);
  t.equal(f.set(Fid.POWER_MANAGEMENT, 1, false).status, INVALID_FIELD, 'there is state 0 alone');
  t.equal(f.set(Fid.ASYNC_EVENT_CONFIG, 0x1ff, false).status, OK);
  t.equal(f.get(Fid.ASYNC_EVENT_CONFIG, 0).dw0, 0x1ff);
  t.equal(f.set(Fid.ASYNC_EVENT_CONFIG, 0x200, false).status, INVALID_FIELD, 'not in OAES');
  t.equal(f.get(Fid.ASYNC_EVENT_CONFIG, 0).dw0, 0x1ff);
  for (const [ms, rounded] of [
    [0, 0],
    [1, 10_000],
    [10_000, 10_000],
    [10_001, 20_000],
  ]) {
    t.equal(f.set(Fid.KEEP_ALIVE_TIMER, ms, false).status, OK);
    t.equal(f.features.keepAlive.ms, rounded, `${ms} ms, rounded up to KAS`);
  }
  t.equal(f.set(Fid.KEEP_ALIVE_TIMER, 0xffff_ffff, false).status, TIMEOUT_INVALID);
  t.equal(f.features.keepAlive.ms, 20_000);
});

t.test('namespaces: features that have a value for each, and those that have not', async (t) => {
  const f = features();
  const { ERROR_RECOVERY: fid, ARBITRATION } = Fid;
  t.equal(f.set(fid, 5, false, 1).status, OK);
  t.equal(f.set(fid, 6, false, 2).status, OK);
  t.strictSame(
    [1, 2, 3].map((nsid) => f.get(fid, 0, nsid).dw0),
    [5, 6, 0],
  );
  t.equal(f.set(fid, 7, false, ALL).status, OK);
  t.strictSame(
    [1, 2, 3].map((nsid) => f.get(fid, 0, nsid).dw0),
    [7, 7, 7],
  );
  for (const nsid of [0, 33, ALL]) {
    t.equal(f.get(fid, 0, nsid).status, INVALID_NAMESPACE, `get of NSID ${nsid}`);
  }
  t.equal(f.set(fid, 0, false, 33).status, INVALID_NAMESPACE);
  t.equal(f.set(fid, 1 << 16, false, 1).status, INVALID_FIELD, 'DULBE is not offered');
  t.equal(f.set(ARBITRATION, 1, false, ALL).status, OK);
  t.equal(f.set(ARBITRATION, 1, false, 1).status, NOT_OF_NAMESPACES);
  t.equal(f.set(ARBITRATION, 1, false, 33).status, INVALID_NAMESPACE);
});

t.test('bits that mean nothing are refused', async (t) => {
  const f = features();
  for (const [fid, value] of [
    [Fid.ARBITRATION, 8],
    [Fid.INTERRUPT_COALESCING, 1 << 16],
    [Fid.VOLATILE_WRITE_CACHE, 2],
    [Fid.WRITE_ATOMICITY, 2],
    [Fid.IO_COMMAND_SET_PROFILE, 1],
  ]) {
    t.equal(f.set(fid, value).status, INVALID_FIELD, `FID ${fid}`);
  }
});

t.test('the timestamp goes on from what the host set', async (t) => {
  const { timestamp } = features().features;
  const read = () => {
    const { data } = timestamp.get('current');
    return { ms: Number(Buffer.from(data!).readUIntLE(0, 6)), origin: (data![6] >> 1) & 7 };
  };
  t.equal(read().origin, 0);
  t.ok(read().ms < 60_000, 'since the reset');
  const set = Buffer.alloc(8, 0xff);
  set.writeUIntLE(0x0102_0304_0506, 0, 6);
  t.equal(timestamp.set(0, 0, set).status, OK);
  await new Promise((resolve) => setTimeout(resolve, 20));
  const { ms, origin } = read();
  t.equal(origin, 1);
  t.ok(ms >= 0x0102_0304_0506 + 15 && ms < 0x0102_0304_0506 + 60_000, `${ms}`);
  timestamp.reset();
  t.equal(read().origin, 0);
});
