/** What happened between two snapshots, for the whole target, each VM, each of its namespaces, and each disk. */

import { add, subtract } from './latency.js';

/**
 * @typedef {import('../../target/snapshot.ts').Snapshot} Snapshot
 * @typedef {import('../../target/snapshot.ts').IoTotals} IoTotals
 * @typedef {import('../../target/snapshot.ts').LatencyBuckets} LatencyBuckets
 */

/**
 * @typedef {object} Rates of an interval; all but errors and latency a second
 * @property {number} readOps
 * @property {number} writeOps
 * @property {number} otherOps flushes and the rest
 * @property {number} readBytes
 * @property {number} writeBytes
 * @property {Map<string, number>} errors by status, how many in the interval
 * @property {LatencyBuckets} latency of reads and writes in the interval
 */

/** The key of the whole target. */
export const ALL = 'all';

/** @param {string} nqn @param {string} [socket] */
export function vmKey(nqn, socket) {
  return JSON.stringify(['vm', nqn, socket]);
}

/** @param {string} nqn @param {string | undefined} socket @param {number} nsid */
export function namespaceKey(nqn, socket, nsid) {
  return JSON.stringify(['ns', nqn, socket, nsid]);
}

/** @param {string} bdev */
export function diskKey(bdev) {
  return JSON.stringify(['disk', bdev]);
}

/** @type {Omit<IoTotals, 'readLatencyNs' | 'writeLatencyNs'>} */
const NOTHING = {
  readOps: 0,
  writeOps: 0,
  flushOps: 0,
  otherOps: 0,
  readBytes: 0,
  writeBytes: 0,
  errors: {},
  readLatency: [],
  writeLatency: [],
};

/**
 * Commands that were completed.
 *
 * @param {Pick<IoTotals, 'readOps' | 'writeOps' | 'flushOps' | 'otherOps'>} io
 */
export function commands(io) {
  return io.readOps + io.writeOps + io.flushOps + io.otherOps;
}

/**
 * @param {typeof NOTHING} before
 * @param {typeof NOTHING} after
 * @param {number} seconds
 * @returns {Rates}
 */
function difference(before, after, seconds) {
  // Somebody reset the counters.
  const base = commands(after) < commands(before) ? NOTHING : before;
  /** @param {'readOps' | 'writeOps' | 'flushOps' | 'otherOps' | 'readBytes' | 'writeBytes'} name */
  const rate = (name) => Math.max(0, after[name] - base[name]) / seconds;
  /** @type {Map<string, number>} */
  const errors = new Map();
  for (const [status, total] of Object.entries(after.errors)) {
    const more = total - (base.errors[status] ?? 0);
    if (more > 0) errors.set(status, more);
  }
  return {
    readOps: rate('readOps'),
    writeOps: rate('writeOps'),
    otherOps: rate('flushOps') + rate('otherOps'),
    readBytes: rate('readBytes'),
    writeBytes: rate('writeBytes'),
    errors,
    latency: add(
      subtract(base.readLatency, after.readLatency),
      subtract(base.writeLatency, after.writeLatency),
    ),
  };
}

/**
 * The counters of a snapshot by key; of a VM with the time of its connection, since another connection counts from 0.
 *
 * @param {Snapshot} snapshot
 * @returns {Map<string, { io: typeof NOTHING, epoch: string }>}
 */
function counters(snapshot) {
  /** @type {Map<string, { io: typeof NOTHING, epoch: string }>} */
  const found = new Map();
  for (const { name, uuid, io } of snapshot.bdevs) found.set(diskKey(name), { io, epoch: uuid });
  for (const { nqn, listeners } of snapshot.subsystems) {
    for (const { socket, controller } of listeners) {
      const epoch = controller?.connectedAt ?? '';
      found.set(vmKey(nqn, socket), { io: controller?.io ?? NOTHING, epoch });
      for (const { nsid, io } of controller?.namespaces ?? []) {
        found.set(namespaceKey(nqn, socket, nsid), { io, epoch });
      }
    }
  }
  return found;
}

/**
 * The rates between two snapshots of the same process, by key; {@link ALL} is the sum of the disks.
 *
 * @param {Snapshot} before
 * @param {Snapshot} after
 * @returns {Map<string, Rates>}
 */
export function ratesBetween(before, after) {
  const seconds = (after.ticks - before.ticks) / 1e9;
  /** @type {Map<string, Rates>} */
  const rates = new Map();
  if (!(seconds > 0)) return rates;
  const earlier = counters(before);
  for (const [key, { io, epoch }] of counters(after)) {
    const base = earlier.get(key);
    rates.set(key, difference(base?.epoch === epoch ? base.io : NOTHING, io, seconds));
  }
  rates.set(ALL, sum(after.bdevs.map(({ name }) => rates.get(diskKey(name)))));
  return rates;
}

/**
 * @param {(Rates | undefined)[]} parts
 * @returns {Rates}
 */
function sum(parts) {
  const total = difference(NOTHING, NOTHING, 1);
  for (const part of parts) {
    if (part === undefined) continue;
    total.readOps += part.readOps;
    total.writeOps += part.writeOps;
    total.otherOps += part.otherOps;
    total.readBytes += part.readBytes;
    total.writeBytes += part.writeBytes;
    total.latency = add(total.latency, part.latency);
    for (const [status, n] of part.errors) {
      total.errors.set(status, (total.errors.get(status) ?? 0) + n);
    }
  }
  return total;
}

/**
 * How busy each reactor was: the share of its time, by index.
 *
 * @param {Snapshot} before
 * @param {Snapshot} after
 * @returns {Map<number, number>}
 */
export function reactorLoads(before, after) {
  /** @type {Map<number, number>} */
  const loads = new Map();
  for (const { index, busyNs, idleNs } of after.reactors) {
    const earlier = before.reactors.find((reactor) => reactor.index === index);
    const busy = busyNs - (earlier?.busyNs ?? 0);
    const idle = idleNs - (earlier?.idleNs ?? 0);
    // Started anew meanwhile, or it stands still.
    if (busy >= 0 && idle >= 0 && busy + idle > 0) loads.set(index, busy / (busy + idle));
  }
  return loads;
}
