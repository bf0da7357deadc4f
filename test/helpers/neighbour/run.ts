/**
 * Each trouble beside the neighbour, in each configuration: the neighbour's data is right and its commands complete while the trouble is
 * held, JSON-RPC and other VMs are served, and the troublemaker can be removed meanwhile and leaves nothing. No clock judges: what counts
 * is done between two points at which the trouble is known to be there.
 */
import assert from 'node:assert/strict';
import t, { type Test } from 'tap';
import { NvmeClient } from '../../../src/client/nvme.ts';
import { NvmOpcode } from '../../../src/spec/nvm.ts';
import { backTo, footprint } from './footprint.ts';
import { Scene } from './scene.ts';
import { CONFIGURATIONS, type Configuration, describeConfiguration, Stage } from './stage.ts';
import type { Held, Trouble } from './trouble.ts';

/** Of everything that the neighbour does, while the trouble is held; and after what it concerns was removed. */
const COMMANDS = 50;
const COMMANDS_AFTER = 10;
/** Mappings that were given up and wait to be collected, which each thread does for 256 of them. */
const UNCOLLECTED = 320;

/** `npm run test:neighbour`: all pairs of trouble and configuration; otherwise one configuration for each trouble, in turn. */
const FULL = process.env.DOORBELL_NEIGHBOUR === 'full';
/** Only troubles whose names contain this. */
const WANTED = process.env.DOORBELL_TROUBLE ?? '';

/** Tests of these troubles. */
export function testTroubles(troubles: readonly Trouble[]): void {
  const wanted = troubles.filter(({ name }) => name.includes(WANTED));
  for (const [number, configuration] of CONFIGURATIONS.entries()) {
    const chosen = wanted.filter((_, i) => FULL || i % CONFIGURATIONS.length === number);
    if (chosen.length > 0) {
      t.test(describeConfiguration(configuration), (t) => play(t, configuration, chosen));
    }
  }
}

async function play(
  t: Test,
  configuration: Configuration,
  troubles: readonly Trouble[],
): Promise<void> {
  let stage: Stage | undefined;
  t.teardown(() => stage?.abandon());
  for (const trouble of troubles) {
    await t.test(trouble.name, { skip: trouble.needs ?? false }, async (t) => {
      stage ??= await Stage.open(configuration);
      const scene = new Scene(stage);
      try {
        await within(endure(stage, scene, trouble));
        t.pass('the neighbour went on');
      } catch (error) {
        // The next trouble finds a fresh target. File systems end first: what waits for one cannot be killed.
        const broken = stage;
        stage = undefined;
        await scene.close();
        await broken.abandon();
        throw error;
      }
    });
  }
  const last = stage;
  stage = undefined;
  if (last !== undefined) {
    const { checked, code } = await last.close();
    t.ok(checked > 0, `${checked} reads of the neighbour were compared`);
    t.equal(code, 0, 'the target ended as it should');
  }
}

/** A test that goes on for longer has stopped, and fails. Milliseconds. */
const PATIENCE_MS = 240_000;

async function within(work: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    const stopped = new Error('the trouble, or the target, stopped the test itself');
    timer = setTimeout(() => reject(stopped), PATIENCE_MS);
  });
  try {
    await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
    work.catch(() => {});
  }
}

/** One trouble from its beginning to its end. Rejects with what it did to others, or what it left. */
async function endure(stage: Stage, scene: Scene, trouble: Trouble): Promise<void> {
  const { target, neighbour } = stage;
  const before = footprint(target.pid);
  try {
    const held = await trouble.establish(scene);
    await during(held, async () => {
      await neighbour.advance(COMMANDS);
      await answers(stage);
      await serveAnother(stage);
    });
    await scene.remove();
    await neighbour.advance(COMMANDS_AFTER);
    await held.release();
  } finally {
    await scene.close();
  }
  await backTo(target.pid, before, UNCOLLECTED);
  await neighbour.advance(COMMANDS_AFTER);
}

/** Does `work` while the trouble is held, and is known to be held at the end. */
async function during(held: Held, work: () => Promise<void>): Promise<void> {
  let working = true;
  const done = work().finally(() => {
    working = false;
  });
  done.catch(() => {});
  while (working) {
    await held.held();
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await done;
  await held.held();
}

/** JSON-RPC answers, to questions about everything there is. */
async function answers({ target }: Stage): Promise<void> {
  for (const method of [
    'spdk_get_version',
    'bdev_get_bdevs',
    'bdev_get_iostat',
    'nvmf_get_subsystems',
    'nvmf_get_stats',
    'framework_get_reactors',
  ]) {
    await target.call(method);
  }
}

/** Somebody else's VM is made, works, changes and goes. */
async function serveAnother(stage: Stage): Promise<void> {
  const scene = new Scene(stage);
  try {
    const [first, second] = [await scene.malloc(), await scene.file(scene.image())];
    const served = await scene.serve(first);
    const client = await NvmeClient.connect(served.socket, { memoryBytes: 1024 * 1024 });
    scene.defer(() => client.close());
    const pair = await client.createQueuePair(1, 8);
    const { nqn } = served;
    await scene.call('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: second, nsid: 2 } });
    const prp1 = client.memory.iova + client.memory.allocate(4096);
    for (const nsid of [1, 2]) {
      for (const opcode of [NvmOpcode.WRITE, NvmOpcode.READ, NvmOpcode.FLUSH]) {
        const { status } = await pair.execute({ opcode, nsid, prp1, cdw12: 7 });
        assert.equal(status, 0, `another VM: command ${opcode} of namespace ${nsid}`);
      }
    }
    await scene.call('nvmf_subsystem_remove_ns', { nqn, nsid: 2 });
    await client.disable();
    await scene.remove();
  } finally {
    await scene.close();
  }
}
