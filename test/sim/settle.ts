/**
 * Lets a simulation go on without new events, until everything is over that nothing real holds up: if it is not over in time, somebody was
 * forgotten, or one's trouble holds up another.
 */
import { type Command, describe } from './commands.ts';
import { settled } from './globals.ts';
import type { Host } from './host.ts';
import { Pages } from './host-memory.ts';
import type { HostSq } from './host-queues.ts';
import { Violation } from './violation.ts';
import type { Operation, World } from './world.ts';

/** More than what a move waits for commands that do not end. Virtual nanoseconds. */
const PATIENCE = 3e9;
/** Against a simulation that goes round and round. */
const MOST_ROUNDS = 50_000;

export async function settle(world: World): Promise<void> {
  const deadline = world.now + PATIENCE;
  for (let round = 0; ; round++) {
    await world.deliverAll();
    await settled();
    world.check();
    for (const host of world.hosts) {
      host.queues.consume(Number.POSITIVE_INFINITY);
      for (const sq of host.queues.sqs.values()) {
        host.queues.ring(sq);
      }
    }
    for (const thread of world.threads.threads) {
      for (let i = 0; i < 8 && thread.awake; i++) {
        world.turn(thread);
      }
    }
    const late = round % 4 === 0 ? unfinished(world) : undefined;
    if (round % 4 === 0 && late === undefined) {
      return;
    }
    if (!world.passTime(deadline) || round > MOST_ROUNDS) {
      const left = late ?? unfinished(world);
      if (left === undefined) {
        return;
      }
      throw new Violation(`${left}: not over in time, and nothing real holds it up`);
    }
  }
}

/** What is to be over, and is not; or undefined. */
function unfinished(world: World): string | undefined {
  for (const operation of world.operations) {
    if (!mayWait(world, operation)) {
      return `operation '${operation.name}' of host ${operation.host.id}`;
    }
  }
  for (const { index, inflight, state } of world.hosts.length > 0 ? [] : world.threads.threads) {
    if (inflight > 0 && state === 'runs') {
      return `reactor ${index} has ${inflight} commands, of nobody`;
    }
  }
  for (const host of world.hosts) {
    if (host.resetting || host.failed) {
      continue;
    }
    for (const sq of host.queues.sqs.values()) {
      for (const command of sq.commands.values()) {
        if (!queueMayRest(host, sq) && !hangs(command)) {
          return `${describe(command)} of host ${host.id}`;
        }
      }
    }
  }
  return undefined;
}

function hangs({ bdevs }: Command): boolean {
  return bdevs.some(
    ({ disk, injected }) => disk?.mood === 'hung' || disk?.mood === 'slow' || injected,
  );
}

/** Some of its memory is not there, nobody hears of its completions, or commands that hang have all of its room. */
function queueMayRest(host: Host, { page, cq, closing, size }: HostSq): boolean {
  const pages = [page, cq.page, ...(host.shadowed ? [Pages.SHADOW, Pages.SHADOW + 1] : [])];
  if (closing || pages.some((each) => !host.memory.reachable(each))) {
    return true;
  }
  if (cq.interrupts && host.isMasked(cq.vector)) {
    return true;
  }
  const rests = (sq: HostSq): boolean => !host.memory.reachable(sq.page);
  const stuck = [...host.queues.sqs.values()]
    .filter((sq) => sq.cq === cq)
    .flatMap((sq) =>
      [...sq.commands.values()].filter((command) => rests(sq) || hangs(command)),
    ).length;
  return stuck >= Math.min(cq.size, size) - 1;
}

function mayWait(world: World, { host, name }: Operation): boolean {
  const hangsInMemory = world.threads.threads.some(({ ring }) => ring.hangsIn(host.id));
  return (
    hangsInMemory ||
    ((name === 'write cache' || name === 'move') && host.queues.outstanding.some(hangs))
  );
}
