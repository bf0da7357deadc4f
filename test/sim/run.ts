/** Runs one seed: events in the order that it decides, looks now and then whether all is well, and in the end takes everything down. */
import { Random } from '../helpers/random.ts';
import { ACTIONS, type Action } from './actions.ts';
import { SECTORS } from './bdevs.ts';
import type { Coverage } from './coverage.ts';
import { SECTOR_WORDS } from './disk.ts';
import { fakeGlobals, settled } from './globals.ts';
import { settle } from './settle.ts';
import { Violation } from './violation.ts';
import { World } from './world.ts';

const EVENTS_PER_LOOK = 120;
const TOTAL_WEIGHT = ACTIONS.reduce((sum, { weight }) => sum + weight, 0);

export interface Outcome {
  readonly events: number;
  readonly commands: number;
  readonly turns: number;
}

/** Rejects with what went wrong. */
export async function simulate(seed: number, events: number, coverage: Coverage): Promise<Outcome> {
  Violation.first = undefined;
  const random = new Random(seed);
  const world = new World(random, coverage);
  const restore = fakeGlobals(world.timeline, new Random(seed ^ 0x5eed));
  try {
    await world.start();
    let done = 0;
    let commands = 0;
    for (const host of world.hosts) {
      host.queues.completed = 0;
    }
    while (done < events) {
      if (await event(world)) {
        done += 1;
        if (done % EVENTS_PER_LOOK === 0) {
          await settle(world);
        }
      }
      await reactorsAndMain(world);
    }
    commands = world.hosts.reduce((sum, { queues }) => sum + queues.completed, 0);
    await end(world);
    world.check();
    return { events: done, commands, turns: world.turns };
  } finally {
    restore();
    world.memory.dispose();
  }
}

async function event(world: World): Promise<boolean> {
  const { random } = world;
  const host = random.pick(world.hosts);
  // What failed is to be reset; and a reset amid other changes is worth more than its weight.
  const creates = world.underWay(host, 'create queues');
  const inPassing = creates && world.underWay(host, 'move') ? 0.2 : 0;
  if (!host.resetting && random.chance(host.failed ? 0.2 : inPassing)) {
    world.operation('reset', host, () => host.reset());
    await settled();
    return true;
  }
  const action = choose(random);
  if (!action.run(world, host)) {
    return false;
  }
  if (!SELF_COVERED.has(action.name)) {
    world.cover(action.name, host);
  }
  await settled();
  return true;
}

/** They are counted as operations. */
const SELF_COVERED = new Set(
  ACTIONS.map(({ name }) => name).filter(
    (name) =>
      ![
        'submit',
        'consume',
        'bad doorbell',
        'mood',
        'write back',
        'inject errors',
        'reactor dies',
        'rest',
      ].includes(name),
  ),
);

function choose(random: Random): Action {
  let left = (random.bits() / 2 ** 32) * TOTAL_WEIGHT;
  for (const action of ACTIONS) {
    left -= action.weight;
    if (left < 0) {
      return action;
    }
  }
  return ACTIONS[0];
}

/** Some turns of some reactors, and some of main's messages. */
async function reactorsAndMain(world: World): Promise<void> {
  const { random } = world;
  for (const thread of world.threads.threads) {
    for (let i = random.below(4); i > 0 && thread.awake; i--) {
      world.turn(thread);
    }
  }
  for (let i = random.below(4); i > 0 && world.deliverOne(); i--) {
    await settled();
  }
  if (random.chance(0.1)) {
    world.timeline.advanceTo(world.now + random.below(300_000));
  }
  world.check();
}

/** All troubles are over, and then all must be well; then the clients go, and nothing may be left. */
async function end(world: World): Promise<void> {
  for (const bdev of world.bdevs) {
    bdev.clearErrors();
    bdev.disk?.setMood('fine');
  }
  await settle(world);
  for (const host of world.hosts) {
    for (const vector of [1, 2]) {
      if (host.isMasked(vector)) {
        world.operation('unmask', host, () => host.mask(vector, false));
      }
    }
    for (const [index, { mapped, changing }] of host.memory.regions.entries()) {
      if (!mapped && !changing) {
        world.operation('map', host, () => host.map(index));
      }
    }
  }
  await settle(world);
  for (const { disk, history } of world.bdevs) {
    for (let sector = 0; disk !== undefined && sector < SECTORS; sector++) {
      const words = disk.seen(sector);
      const stamp = words[0];
      if (words[1] !== stamp || words[SECTOR_WORDS - 1] !== stamp) {
        throw new Violation(`sector ${sector} of ${history.name} is torn`);
      }
      history.check(sector, stamp, world.step(), 'at the end');
    }
  }
  for (const host of world.hosts.splice(0)) {
    host.memory.checkFree();
    world.operation('leave', host, () => host.leave());
  }
  await settle(world);
  const stopped = world.pool.stop();
  let over = false;
  void stopped.then(() => {
    over = true;
  });
  for (let round = 0; !over; round++) {
    for (const thread of world.threads.threads) {
      if (thread.awake) {
        world.turn(thread);
      }
    }
    await world.deliverAll();
    await settled();
    if (round > 5000) {
      throw new Violation('the reactors do not stop');
    }
    world.passTime(Number.POSITIVE_INFINITY);
  }
  world.memory.checkPoison();
}
