/** What is not well, in words: nothing here is a guess, each line follows from the snapshot, the counters or the connection. */

import { clock, percent, plural, shortNqn } from './format.js';
import { diskKey, vmKey } from './rates.js';

/**
 * @typedef {import('./model.js').Model} Model
 * @typedef {{ level: 'error' | 'warning', text: string }} Alert
 */

/** Share of its time from which a reactor counts as overloaded. */
const OVERLOADED = 0.95;

/** Statuses that backends give, as NVMe Base 2.0 §4.2.3 names them. @type {Readonly<Record<string, string>>} */
const STATUS_NAMES = {
  '0x2': 'Invalid Field in Command',
  '0x6': 'Internal Error',
  '0x7': 'Command Abort Requested',
  '0xb': 'Invalid Namespace or Format',
  '0x20': 'Namespace is Write Protected',
  '0x80': 'LBA Out of Range',
  '0x81': 'Capacity Exceeded',
  '0x280': 'Write Fault',
  '0x281': 'Unrecovered Read Error',
};

/** @param {string} status */
export function statusName(status) {
  const name = STATUS_NAMES[status];
  return name === undefined ? `status ${status}` : `${name} (${status})`;
}

/**
 * @param {Model} model
 * @returns {Alert[]} the worst first
 */
export function findAlerts(model) {
  const { snapshot, connection, lostAt } = model;
  /** @type {Alert[]} */
  const alerts = [];
  if (connection === 'lost') {
    const since = lostAt === undefined ? '' : ` since ${clock(lostAt)}; the figures are of then`;
    alerts.push({ level: 'error', text: `No connection to the target${since}.` });
  }
  if (snapshot === undefined) return alerts;
  for (const { index, core, alive } of snapshot.reactors) {
    if (!alive) {
      const text = `Reactor ${index} on CPU ${core} is lost: its guests reset their controllers.`;
      alerts.push({ level: 'error', text });
    }
  }
  alerts.push(...findErrors(model));
  for (const { index, core } of snapshot.reactors) {
    const load = model.loads.get(index) ?? 0;
    if (load >= OVERLOADED) {
      const text = `Reactor ${index} on CPU ${core} is ${percent(load)} busy: its VMs wait for it.`;
      alerts.push({ level: 'warning', text });
    }
  }
  return alerts;
}

/**
 * The errors of the last minute by disk, and those of VMs that no disk had (a guest's own mistakes).
 *
 * @param {Model} model
 * @returns {Alert[]}
 */
function findErrors({ snapshot, errors }) {
  /** @param {string} key */
  const byStatus = (key) => {
    /** @type {Map<string, number>} */
    const found = new Map();
    for (const error of errors) {
      if (error.key === key) found.set(error.status, (found.get(error.status) ?? 0) + error.n);
    }
    return found;
  };
  /** @param {string} where @param {Map<string, number>} found @returns {Alert[]} */
  const describe = (where, found) =>
    [...found].map(([status, n]) => ({
      level: 'warning',
      text: `${where}: ${plural(n, 'I/O error')} in the last minute, ${statusName(status)}.`,
    }));
  const disks = (snapshot?.bdevs ?? []).map(({ name }) => ({
    name,
    found: byStatus(diskKey(name)),
  }));
  const ofDisks = new Set(disks.flatMap(({ found }) => [...found.keys()]));
  return [
    ...disks.flatMap(({ name, found }) => describe(`Disk ${name}`, found)),
    ...(snapshot?.subsystems ?? []).flatMap(({ nqn, listeners }) =>
      listeners.flatMap(({ socket }) => {
        const found = byStatus(vmKey(nqn, socket));
        for (const status of ofDisks) found.delete(status);
        return describe(`VM ${shortNqn(nqn)}`, found);
      }),
    ),
  ];
}
