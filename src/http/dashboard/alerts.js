/** What is not well, in words: nothing here is a guess, each line follows from the snapshot, the counters or the connection. */

import { clock, percent, plural, shortNqn } from './format.js';
import { vmKey } from './rates.js';

/**
 * @typedef {import('./model.js').Model} Model
 * @typedef {{ level: 'error' | 'warning', text: string }} Alert
 */

/** Share of its time from which a reactor counts as overloaded. */
const OVERLOADED = 0.95;

/** Statuses that backends give, as NVMe Base 2.0 §4.2.3 names them. @type {Readonly<Record<string, string>>} */
const STATUS_NAMES = {
  '0x002': 'Invalid Field in Command',
  '0x006': 'Internal Error',
  '0x007': 'Command Abort Requested',
  '0x00b': 'Invalid Namespace or Format',
  '0x020': 'Namespace is Write Protected',
  '0x080': 'LBA Out of Range',
  '0x081': 'Capacity Exceeded',
  '0x280': 'Write Fault',
  '0x281': 'Unrecovered Read Error',
};

/** @param {string} status */
export function statusName(status) {
  if (status === 'other') return 'several statuses';
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
  for (const { name, writeBackError } of snapshot.bdevs) {
    if (writeBackError !== undefined) {
      const text = `Disk ${name}: its write-back failed (${writeBackError}), data is lost; no flush succeeds until it is reopened.`;
      alerts.push({ level: 'error', text });
    }
  }
  const errors = findErrors(model);
  alerts.push(...errors, ...findToldFailures(model, errors));
  for (const { index, core } of snapshot.reactors) {
    const load = model.loads.get(index) ?? 0;
    if (load >= OVERLOADED) {
      const text = `Reactor ${index} on CPU ${core} is ${percent(load)} busy: its VMs wait for it.`;
      alerts.push({ level: 'warning', text });
    }
  }
  return alerts;
}

/** How far back events are of interest. ms */
const EVENT_MEMORY_MS = 60_000;

/**
 * Failures of disks that an event of the last minute tells of and no counter that is still there: the VM may have left within a second.
 *
 * @param {Model} model
 * @param {readonly Alert[]} listed
 * @returns {Alert[]}
 */
function findToldFailures({ snapshot, events }, listed) {
  const since = Date.parse(snapshot?.time ?? '') - EVENT_MEMORY_MS;
  /** By VM and disk, the last. @type {Map<string, string>} */
  const failures = new Map();
  for (const event of events) {
    if (event.type !== 'error' || event.bdev === undefined || Date.parse(event.time) < since) {
      continue;
    }
    const where = `VM ${shortNqn(event.nqn ?? '')}, disk ${event.bdev}`;
    if (!listed.some(({ text }) => text.startsWith(`${where}:`))) {
      failures.set(where, event.message);
    }
  }
  return [...failures].map(([where, message]) => ({
    level: 'warning',
    text: `${where}: ${message}.`,
  }));
}

/**
 * The errors of the last minute by namespace; and those of a VM that were of none of its namespaces.
 *
 * @param {Model} model
 * @returns {Alert[]}
 */
function findErrors({ snapshot, errors }) {
  /** By VM, then by status and namespace. @type {Map<string, Map<string, { nsid?: number, status: string, n: number }>>} */
  const found = new Map();
  /** @param {string} vm @param {string} status @param {number | undefined} nsid @param {number} n */
  const note = (vm, status, nsid, n) => {
    const ofVm = found.get(vm) ?? new Map();
    const key = `${nsid} ${status}`;
    ofVm.set(key, { nsid, status, n: (ofVm.get(key)?.n ?? 0) + n });
    found.set(vm, ofVm);
  };
  for (const { key, status, n } of errors) {
    const [kind, nqn, socket, nsid] = JSON.parse(key);
    const vm = vmKey(nqn, socket);
    if (kind === 'vm') note(vm, status, undefined, n);
    if (kind !== 'ns') continue;
    note(vm, status, nsid, n);
    // It is among those of the VM, too.
    note(vm, status, undefined, -n);
  }
  return [...found].flatMap(([vm, counts]) => {
    const [, nqn] = JSON.parse(vm);
    const { namespaces = [] } =
      snapshot?.subsystems.find((subsystem) => subsystem.nqn === nqn) ?? {};
    return [...counts.values()]
      .filter(({ n }) => n > 0)
      .map(({ nsid, status, n }) => {
        const bdev = namespaces.find((namespace) => namespace.nsid === nsid)?.bdev;
        const disk = nsid === undefined ? '' : `, disk ${bdev ?? `of namespace ${nsid}`}`;
        const what = `${plural(n, 'I/O error')} in the last minute, ${statusName(status)}`;
        return /** @type {Alert} */ ({
          level: 'warning',
          text: `VM ${shortNqn(nqn)}${disk}: ${what}.`,
        });
      });
  });
}
