/**
 * Which queue is to move to which reactor: from one that cannot keep up to one that has time for it. Looks, and decides; moves nothing. The
 * load of a single queue is not known, so those of a reactor count alike.
 */

/** A completion queue with its submission queues. */
export interface QueueGroup {
  /** The same at each look. */
  readonly key: string;
  readonly reactor: number;
  /** Another one when commands have come or gone. */
  readonly progress: string;
}

/** A reactor's time since it started, in ns. */
export interface ReactorTimes {
  readonly alive: boolean;
  readonly busy: number;
  readonly idle: number;
}

export interface Decision {
  readonly key: string;
  readonly from: number;
  readonly to: number;
}

/** Percent of a reactor's time. SPDK's names and defaults. */
export interface Limits {
  /** A reactor that is so busy is too busy. */
  readonly coreBusy: number;
  /** No reactor is given more than this. */
  readonly coreLimit: number;
}

/** Looks at which a reactor has to be too busy, one after the other. */
const PATIENCE = 2;
/** Looks for which a queue stays where it was put. */
const REST = 10;

export class Balancer {
  readonly #limits: Limits;
  #times: readonly ReactorTimes[] = [];
  /** By reactor: looks at which it was too busy, up to now. */
  readonly #busyLooks = new Map<number, number>();
  #progress = new Map<string, string>();
  /** By group: the look from which it may move again. */
  #resting = new Map<string, number>();
  #looks = 0;

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  /** What is to be moved after this look: one queue of a reactor at most. Each is to be tried once. */
  look(times: readonly ReactorTimes[], groups: readonly QueueGroup[]): Decision[] {
    this.#looks += 1;
    const shares = times.map((time, index) => share(time, this.#times[index]));
    const active = groups.filter(({ key, progress }) => {
      const before = this.#progress.get(key);
      return before !== undefined && before !== progress;
    });
    this.#times = times;
    this.#progress = new Map(groups.map(({ key, progress }) => [key, progress]));
    this.#resting = new Map(
      [...this.#resting].filter(([key, until]) => this.#progress.has(key) && until > this.#looks),
    );
    const decisions: Decision[] = [];
    for (const [from, busy] of shares.entries()) {
      const looks = busy >= this.#limits.coreBusy ? (this.#busyLooks.get(from) ?? 0) + 1 : 0;
      this.#busyLooks.set(from, looks);
      if (looks < PATIENCE) {
        continue;
      }
      const there = active.filter(({ reactor }) => reactor === from);
      const group = there.find(({ key }) => !this.#resting.has(key));
      const to = leastBusy(times, shares, from);
      const load = busy / there.length;
      if (there.length < 2 || group === undefined || to === undefined) {
        continue;
      }
      if (shares[to] + load <= this.#limits.coreLimit) {
        decisions.push({ key: group.key, from, to });
        shares[to] += load;
        this.#busyLooks.set(from, 0);
        this.#resting.set(group.key, this.#looks + REST);
      }
    }
    return decisions;
  }
}

/** Percent of the time since the look before that was busy; 0 for a reactor that has started since. */
function share(now: ReactorTimes, before: ReactorTimes | undefined): number {
  const busy = now.busy - (before?.busy ?? now.busy);
  const idle = now.idle - (before?.idle ?? now.idle);
  return busy > 0 && idle >= 0 ? (100 * busy) / (busy + idle) : 0;
}

function leastBusy(
  times: readonly ReactorTimes[],
  shares: readonly number[],
  except: number,
): number | undefined {
  return [...shares.keys()]
    .filter((index) => index !== except && times[index].alive)
    .sort((a, b) => shares[a] - shares[b])[0];
}
