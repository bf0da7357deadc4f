/** What happens in a simulation, and how often. */

import { MOODS } from './disk.ts';
import type { Host } from './host.ts';
import type { World } from './world.ts';

export interface Action {
  readonly name: string;
  readonly weight: number;
  /** False if there is nothing to do it to. */
  run(world: World, host: Host): boolean;
}

/** Runs an operation of which a host has one at a time. */
function exclusive(
  world: World,
  host: Host,
  what: 'memory' | 'namespaces' | 'move' | 'write-cache',
  name: string,
  run: () => Promise<void>,
): boolean {
  if (host.busy.has(what) || host.gone) {
    return false;
  }
  host.busy.add(what);
  world.operation(name, host, () => run().finally(() => host.busy.delete(what)));
  return true;
}

export const ACTIONS: readonly Action[] = [
  {
    name: 'submit',
    weight: 60,
    run(world, host) {
      const { random } = world;
      const open = [...host.queues.sqs.values()].filter(({ closing }) => !closing);
      if (open.length === 0) {
        return false;
      }
      const sq = random.pick(open);
      const count = host.queues.submit(sq, random.size(32));
      if (random.chance(0.9)) {
        host.queues.ring(sq);
      }
      return count > 0;
    },
  },
  {
    name: 'consume',
    weight: 40,
    run: (world, host) => host.queues.consume(world.random.size(64)) > 0,
  },
  {
    name: 'bad doorbell',
    weight: 1,
    run(world, host) {
      const sqs = [...host.queues.sqs.values()];
      if (sqs.length === 0) {
        return false;
      }
      host.queues.ringNonsense(world.random.pick(sqs));
      return true;
    },
  },
  {
    name: 'create queues',
    weight: 8,
    run(world, host) {
      const qid = host.freeQid;
      if (
        qid === undefined ||
        host.resetting ||
        host.failed ||
        world.underWay(host, 'create queues', 'shadow')
      ) {
        return false;
      }
      world.operation('create queues', host, () => host.createPair(qid));
      return true;
    },
  },
  {
    name: 'delete queues',
    weight: 2,
    run(world, host) {
      const open = [...host.queues.sqs.values()].filter(({ closing }) => !closing);
      if (open.length === 0 || host.resetting || world.underWay(host, 'create queues')) {
        return false;
      }
      const sq = world.random.pick(open);
      world.operation('delete queues', host, () => host.deletePair(sq));
      return true;
    },
  },
  {
    name: 'reset',
    weight: 1.5,
    run(world, host) {
      if (host.resetting) {
        return false;
      }
      world.operation('reset', host, () => host.reset());
      return true;
    },
  },
  {
    name: 'shadow',
    weight: 1,
    run(world, host) {
      const idle = host.queues.cqs.size === 0 && !host.shadowed && !host.resetting && !host.failed;
      if (!idle || world.underWay(host, 'create queues', 'shadow')) {
        return false;
      }
      world.operation('shadow', host, () => host.setShadow());
      return true;
    },
  },
  {
    name: 'move',
    weight: 6,
    run(world, host) {
      const cqs = [...host.queues.cqs.keys()];
      if (cqs.length === 0) {
        return false;
      }
      const cqid = world.random.pick(cqs);
      const to = world.random.below(world.reactors);
      return exclusive(world, host, 'move', 'move', async () => {
        await host.io.move(cqid, to);
      });
    },
  },
  {
    name: 'unmap',
    weight: 3,
    run(world, host) {
      const index = world.random.below(host.memory.regions.length);
      return (
        host.memory.regions[index].mapped &&
        exclusive(world, host, 'memory', 'unmap', () => host.unmap(index))
      );
    },
  },
  {
    name: 'map',
    weight: 6,
    run(world, host) {
      const index = host.memory.regions.findIndex(({ mapped }) => !mapped);
      return index >= 0 && exclusive(world, host, 'memory', 'map', () => host.map(index));
    },
  },
  {
    name: 'add or replace namespace',
    weight: 2,
    run(world, host) {
      const nsid = world.random.pick([...host.commands.namespaces.keys()]);
      const { bdev } = host.commands.namespaces.get(nsid)!;
      const taken = [...host.commands.namespaces.values()].map((each) => each.bdev);
      const free = world.bdevs.filter((each) => !taken.includes(each) && each !== bdev);
      if (free.length === 0) {
        return false;
      }
      const next = world.random.pick(free);
      return exclusive(world, host, 'namespaces', 'add namespace', () =>
        host.changeNamespace(nsid, next),
      );
    },
  },
  {
    name: 'remove namespace',
    weight: 1,
    run(world, host) {
      const nsid = world.random.pick([...host.commands.namespaces.keys()]);
      return exclusive(world, host, 'namespaces', 'remove namespace', () =>
        host.changeNamespace(nsid, undefined),
      );
    },
  },
  {
    name: 'resize',
    weight: 1,
    run(world, host) {
      const nsid = world.random.pick([...host.commands.namespaces.keys()]);
      const { bdev } = host.commands.namespaces.get(nsid)!;
      const users = world.hosts.filter(({ commands }) =>
        [...commands.namespaces.values()].some((each) => each.bdev === bdev || each.next === bdev),
      );
      if (bdev === undefined || users.length !== 1) {
        return false;
      }
      return exclusive(world, host, 'namespaces', 'resize', () => {
        bdev.resize();
        return host.resize(nsid);
      });
    },
  },
  {
    name: 'mask',
    weight: 2,
    run(world, host) {
      const vector = 1 + world.random.below(2);
      const on = !host.isMasked(vector);
      world.operation(on ? 'mask' : 'unmask', host, () => host.mask(vector, on));
      return true;
    },
  },
  {
    name: 'reconnect',
    weight: 1,
    run(world, host) {
      const vector = 1 + world.random.below(2);
      world.operation('reconnect', host, () => host.reconnect(vector));
      return true;
    },
  },
  {
    name: 'write cache',
    weight: 0.7,
    run: (world, host) =>
      exclusive(world, host, 'write-cache', 'write cache', () =>
        host.setWriteThrough(!host.commands.writeThrough),
      ),
  },
  {
    name: 'limit',
    weight: 1,
    run(world, host) {
      const all = [...host.commands.namespaces].filter(
        ([, { bdev, changing }]) => bdev && !changing,
      );
      if (all.length === 0) {
        return false;
      }
      const [nsid, { bdev }] = world.random.pick(all);
      return exclusive(world, host, 'namespaces', 'limit', () => {
        bdev!.limit(!bdev!.limited);
        return host.io.limitNamespace(nsid, bdev!.limits);
      });
    },
  },
  {
    name: 'leave',
    weight: 0.4,
    run(world, host) {
      if (host.busy.size > 0 || host.gone) {
        return false;
      }
      world.hosts.splice(world.hosts.indexOf(host), 1);
      world.operation('leave', host, () => host.leave());
      world.addHost();
      return true;
    },
  },
  {
    name: 'mood',
    weight: 5,
    run(world) {
      const { random } = world;
      const disks = world.bdevs.flatMap(({ disk }) => disk ?? []);
      if (disks.length === 0) {
        return false;
      }
      const disk = random.pick(disks);
      const mood = disk.mood === 'fine' ? random.pick(MOODS) : 'fine';
      // Errors make whatever comes after them mean less.
      disk.setMood(mood === 'failing' && random.chance(0.7) ? 'hung' : mood);
      return true;
    },
  },
  {
    name: 'write back',
    weight: 3,
    run(world) {
      for (const { disk } of world.bdevs) {
        disk?.writeBack();
      }
      return true;
    },
  },
  {
    name: 'inject errors',
    weight: 0.7,
    run(world) {
      const { random } = world;
      const bdev = world.bdevs.find(({ kind }) => kind === 'error');
      bdev?.injectErrors(
        random.pick(['failure', 'nomem', 'pending']),
        random.pick([0, 1]),
        random.size(8),
      );
      return bdev !== undefined;
    },
  },
  {
    name: 'reactor dies',
    weight: 0.25,
    run(world) {
      const living = world.threads.threads.filter(({ state }) => state === 'runs');
      if (living.length === 0) {
        return false;
      }
      // One that dies young is not started again.
      world.timeline.advanceTo(world.now + 1.1e9);
      world.random.pick(living).kill();
      return true;
    },
  },
  {
    name: 'report',
    weight: 1,
    run(world, host) {
      world.operation('report', host, () => world.pool.report());
      return true;
    },
  },
  {
    name: 'rest',
    weight: 4,
    run(world) {
      const { threads } = world.threads;
      if (threads.length === 0) {
        return false;
      }
      const thread = world.random.pick(threads);
      for (let i = 0; i < 400 && thread.awake; i++) {
        world.turn(thread);
      }
      return true;
    },
  },
];
