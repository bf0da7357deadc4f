/**
 * The kernel of a simulation: descriptors, eventfds, and io_uring for each reactor, by the system calls that `Ring` makes. What an operation
 * does to memory and disk happens at some moment between its submission and its completion.
 */
import type { UringRegion } from '../../src/native/types.ts';
import type { Random } from '../helpers/random.ts';
import type { OpenDisk, SimDisk } from './disk.ts';
import type { SimMemory } from './memory.ts';
import { SimRing } from './ring.ts';
import type { Timeline } from './timeline.ts';
import { Violation } from './violation.ts';

const FIRST_FD = 100;

export class SimKernel {
  readonly timeline: Timeline;
  readonly memory: SimMemory;
  readonly random: Random;
  readonly rings = new Map<number, SimRing>();
  readonly #files = new Map<number, OpenDisk>();
  /** Counts of eventfds; and what is called when one is signalled. */
  readonly #events = new Map<number, number>();
  readonly #listeners = new Map<number, () => void>();
  #nextFd = FIRST_FD;

  constructor(timeline: Timeline, memory: SimMemory, random: Random) {
    this.timeline = timeline;
    this.memory = memory;
    this.random = random;
  }

  // --- descriptors ------------------------------------------------------------------------------------------------------

  openDisk(disk: SimDisk): number {
    const fd = this.#nextFd++;
    this.#files.set(fd, disk.open());
    return fd;
  }

  file(fd: number): OpenDisk {
    const file = this.#files.get(fd);
    if (file === undefined) {
      throw new Violation(`there is no file ${fd}`);
    }
    return file;
  }

  /** `listener`: what a host does when it is interrupted. */
  openEvent(listener?: () => void): number {
    const fd = this.#nextFd++;
    this.#events.set(fd, 0);
    if (listener !== undefined) {
      this.#listeners.set(fd, listener);
    }
    return fd;
  }

  close(fd: number): void {
    this.#events.delete(fd);
    this.#listeners.delete(fd);
    this.rings.delete(fd);
  }

  signal(fd: number): number {
    const count = this.#events.get(fd);
    if (count === undefined) {
      throw new Violation(`eventfd ${fd} is signalled, which is closed`);
    }
    this.#events.set(fd, count + 1);
    this.#listeners.get(fd)?.();
    for (const ring of this.rings.values()) {
      ring.readable(fd);
    }
    return 0;
  }

  readEvent(fd: number): void {
    this.#events.set(fd, 0);
  }

  // --- io_uring ---------------------------------------------------------------------------------------------------------

  setup(entries: number, cqEntries: number): UringRegion {
    const ring = new SimRing(this, this.#nextFd++, entries, cqEntries);
    this.rings.set(ring.region.fd, ring);
    return ring.region;
  }

  ring(fd: number): SimRing {
    const ring = this.rings.get(fd);
    if (ring === undefined) {
      throw new Violation(`there is no ring ${fd}`);
    }
    return ring;
  }
}
