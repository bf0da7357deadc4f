/** The table of VMs: one row for each socket that a VM can connect to. */

import { byId, h, meter, setAttribute, setText } from './dom.js';
import { byteRate, count, exact, latency, NONE, shortNqn } from './format.js';
import { percentiles } from './latency.js';
import { vmKey } from './rates.js';
import { Table, textCell } from './table.js';
import { VmDetail } from './vm-detail.js';

/**
 * @typedef {import('./model.js').Model} Model
 * @typedef {import('./rates.js').Rates} Rates
 * @typedef {import('./actions.js').Actions} Actions
 * @typedef {import('../../target/snapshot.ts').SubsystemSnapshot} Subsystem
 * @typedef {import('../../target/snapshot.ts').ListenerSnapshot} Listener
 * @typedef {import('../../target/snapshot.ts').Snapshot} Snapshot
 */

/**
 * @typedef {object} Vm
 * @property {Subsystem} subsystem
 * @property {Listener | undefined} listener `undefined` if the subsystem has no socket
 * @property {Rates | undefined} rates
 * @property {Model} model
 */

/** @param {Vm} vm */
function outstanding({ listener }) {
  const queues = listener?.controller?.queues ?? [];
  return {
    commands: queues.reduce((sum, queue) => sum + queue.outstanding, 0),
    entries: queues.reduce((sum, queue) => sum + queue.size - 1, 0),
  };
}

/** @param {Vm} vm @returns {'running' | 'connected' | 'waiting' | 'no socket'} */
function stateOf({ listener }) {
  if (listener === undefined) return 'no socket';
  if (listener.controller === undefined) return 'waiting';
  return listener.controller.enabled ? 'running' : 'connected';
}

const STATE_MEANS = {
  running: 'the guest has enabled its controller',
  connected: 'the VM is there, and its guest has not enabled the controller',
  waiting: 'no VM is connected to the socket',
  'no socket': 'no VM can connect: add a socket',
};

/** @param {Vm} vm */
const iops = ({ rates }) => rates && rates.readOps + rates.writeOps + rates.otherOps;
/** @param {Vm} vm */
const throughput = ({ rates }) => rates && rates.readBytes + rates.writeBytes;
/** @param {Vm} vm */
const p99 = ({ rates }) => percentiles(rates?.latency ?? [], [0.99])[0];
/** @param {Vm} vm */
const connected = ({ listener }) => listener?.controller !== undefined;

function nameCell() {
  const name = h('strong');
  const socket = h('span', { class: 'muted path' });
  return {
    element: h('span', { class: 'name' }, name, socket),
    /** @param {Vm} vm */
    show({ subsystem, listener }) {
      setText(name, shortNqn(subsystem.nqn));
      setAttribute(name, 'title', subsystem.nqn);
      setText(socket, listener?.socket ?? '');
      setAttribute(socket, 'title', listener?.socket);
    },
  };
}

function stateCell() {
  const element = h('span', { class: 'state' });
  return {
    element,
    /** @param {Vm} vm */
    show(vm) {
      const state = stateOf(vm);
      setAttribute(element, 'data-state', state);
      setAttribute(element, 'title', STATE_MEANS[state]);
      setText(element, state);
    },
  };
}

function queueCell() {
  const bar = meter('Queue occupancy');
  const figure = h('span', { class: 'figure' });
  return {
    element: h('span', { class: 'occupancy' }, bar.element, figure),
    /** @param {Vm} vm */
    show(vm) {
      const { commands, entries } = outstanding(vm);
      const text = connected(vm) ? `${exact(commands)} of ${exact(entries)}` : NONE;
      bar.set(entries === 0 ? 0 : commands / entries, text);
      bar.element.hidden = !connected(vm);
      setText(figure, connected(vm) ? exact(commands) : NONE);
      setAttribute(figure, 'title', `${text} commands outstanding`);
    },
  };
}

export class Vms {
  #empty = h(
    'div',
    { class: 'empty' },
    h(
      'p',
      {},
      'No VM can connect yet. A VM needs a disk, and a socket that it finds the disk behind.',
    ),
    h(
      'p',
      {},
      h('button', { type: 'button', onclick: () => byId('new-disk').click() }, '1. Create a disk'),
      ' ',
      h('button', { type: 'button', onclick: () => byId('new-vm').click() }, '2. Create a VM'),
    ),
  );
  #loading = h('p', { class: 'empty' }, 'Waiting for the target…');
  /** @type {Table<Vm>} */
  #table;

  /** @param {Element} parent @param {Actions} actions */
  constructor(parent, actions) {
    this.#table = new Table({
      label: 'VMs',
      key: ({ subsystem, listener }) => vmKey(subsystem.nqn, listener?.socket),
      title: ({ subsystem }) => shortNqn(subsystem.nqn),
      detail: () => new VmDetail(actions),
      columns: [
        { name: 'VM', sort: ({ subsystem }) => shortNqn(subsystem.nqn), cell: nameCell },
        { name: 'State', sort: stateOf, cell: stateCell },
        {
          name: 'IOPS',
          class: 'number',
          sort: (vm) => iops(vm) ?? -1,
          cell: textCell((vm) => (connected(vm) ? count(iops(vm)) : NONE)),
        },
        {
          name: 'Throughput',
          class: 'number',
          sort: (vm) => throughput(vm) ?? -1,
          cell: textCell((vm) => (connected(vm) ? byteRate(throughput(vm)) : NONE)),
        },
        {
          name: 'p99',
          class: 'number',
          sort: (vm) => p99(vm) ?? -1,
          cell: textCell((vm) => latency(p99(vm))),
        },
        {
          name: 'Queued',
          class: 'number',
          sort: (vm) => outstanding(vm).commands,
          cell: queueCell,
        },
        {
          name: 'Disks',
          class: 'number wide-only',
          sort: ({ subsystem }) => subsystem.namespaces.length,
          cell: textCell(({ subsystem }) => String(subsystem.namespaces.length)),
        },
      ],
    });
    parent.append(this.#loading, this.#empty, this.#table.element);
    this.#empty.hidden = true;
    this.#table.element.hidden = true;
  }

  /** @param {Model} model */
  show(model) {
    const { snapshot, rates } = model;
    if (snapshot === undefined) return;
    const vms = snapshot.subsystems.flatMap((subsystem) =>
      (subsystem.listeners.length === 0 ? [undefined] : subsystem.listeners).map((listener) => ({
        subsystem,
        listener,
        rates: rates.get(vmKey(subsystem.nqn, listener?.socket)),
        model,
      })),
    );
    this.#loading.hidden = true;
    this.#empty.hidden = vms.length > 0;
    this.#table.element.hidden = vms.length === 0;
    this.#table.show(vms);
  }
}
