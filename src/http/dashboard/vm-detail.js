/** What an open row of the table of VMs shows: the namespaces, the queues, and what can be done. */

import { h, KeyedList, meter, setText } from './dom.js';
import { byteRate, bytes, clock, count, exact, latency, NONE } from './format.js';
import { percentiles } from './latency.js';
import { namespaceKey } from './rates.js';

/**
 * @typedef {import('./vms.js').Vm} Vm
 * @typedef {import('./actions.js').Actions} Actions
 * @typedef {import('../../target/snapshot.ts').QueueSnapshot} Queue
 * @typedef {Vm['subsystem']['namespaces'][number]} Namespace
 */

/** Names of columns, and their classes. @typedef {readonly (readonly [string, string?])[]} Heads */

/** @type {Heads} */
const NAMESPACE_HEADS = [
  ['ID'],
  ['Disk'],
  ['Size', 'number'],
  ['IOPS', 'number'],
  ['Throughput', 'number'],
  ['p50', 'number'],
  ['p99', 'number'],
  ['Reads', 'number'],
  ['Writes', 'number'],
  [''],
];

/** @type {Heads} */
const QUEUE_HEADS = [
  ['Queue'],
  ['Reactor', 'number'],
  ['Outstanding', 'number'],
  [''],
  ['Head', 'number'],
  ['Tail', 'number'],
  ['Completion queue', 'number'],
  ['Interrupt'],
];

/**
 * @param {string} label
 * @param {Heads} heads
 * @param {Element} body
 */
function smallTable(label, heads, body) {
  return h(
    'div',
    { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': label },
    h(
      'table',
      { class: 'small' },
      h(
        'thead',
        {},
        h('tr', {}, ...heads.map(([head, style]) => h('th', { scope: 'col', class: style }, head))),
      ),
      body,
    ),
  );
}

/** @param {Heads} heads */
const cells = (heads) => heads.map(([, style]) => h('td', { class: style }));

export class VmDetail {
  /** @type {Vm | undefined} */
  #vm;
  #facts = h('p', { class: 'muted facts' });
  #namespaceBody = h('tbody');
  #queueBody = h('tbody');
  #namespaceTable = smallTable('Namespaces', NAMESPACE_HEADS, this.#namespaceBody);
  #queueTable = smallTable('Queues', QUEUE_HEADS, this.#queueBody);
  /** @type {HTMLElement} */
  #commandLine;
  /** @type {HTMLElement} */
  #removeSocket;
  #noNamespaces = h('p', { class: 'muted' }, 'No disks.');
  #noQueues = h('p', { class: 'muted' }, 'No I/O queues.');

  /** @param {Actions} actions */
  constructor(actions) {
    /** @param {string} label @param {(vm: Vm) => void} act @param {string} [style] */
    const button = (label, act, style) =>
      h(
        'button',
        { type: 'button', class: style, onclick: () => this.#vm !== undefined && act(this.#vm) },
        label,
      );
    this.#commandLine = button('Command line', (vm) => actions.commandLine(vm));
    this.#removeSocket = button('Remove socket', (vm) => actions.removeSocket(vm), 'danger');
    this.element = h(
      'div',
      { class: 'detail-box' },
      this.#facts,
      h('h3', {}, 'Namespaces'),
      this.#noNamespaces,
      this.#namespaceTable,
      h('h3', {}, 'Queues'),
      this.#noQueues,
      this.#queueTable,
      h(
        'p',
        { class: 'buttons' },
        button('Add disk', (vm) => actions.addNamespace(vm)),
        this.#commandLine,
        button('Add socket', (vm) => actions.addSocket(vm)),
        this.#removeSocket,
        button('Delete VM', (vm) => actions.deleteVm(vm), 'danger'),
      ),
    );
    this.namespaces = new KeyedList(
      this.#namespaceBody,
      (/** @type {Namespace} */ { nsid, bdev }) => {
        const figures = cells(NAMESPACE_HEADS);
        const remove = h(
          'button',
          {
            type: 'button',
            class: 'danger',
            'aria-label': `Remove namespace ${nsid}, disk ${bdev}`,
            onclick: () => this.#vm !== undefined && actions.removeNamespace(this.#vm, nsid, bdev),
          },
          'Remove',
        );
        figures[9].append(remove);
        const element = h('tr', { 'data-nsid': nsid }, ...figures);
        return { element, figures };
      },
      ({ figures }, namespace) => this.#showNamespace(figures, namespace),
    );
    this.queues = new KeyedList(
      this.#queueBody,
      (/** @type {Queue} */ { qid }) => {
        const figures = cells(QUEUE_HEADS);
        const occupancy = meter(`Occupancy of queue ${qid}`);
        figures[3].append(occupancy.element);
        return { element: h('tr', { 'data-qid': qid }, ...figures), figures, occupancy };
      },
      ({ figures, occupancy }, queue) => {
        // One entry stays empty, or a full queue would look like an empty one.
        const entries = queue.size - 1;
        const outstanding = `${exact(queue.outstanding)} of ${exact(entries)}`;
        occupancy.set(queue.outstanding / entries, outstanding);
        const texts = [
          `${queue.qid}`,
          `${queue.reactor}`,
          outstanding,
          undefined,
          `${queue.head}`,
          `${queue.tail}`,
          `${queue.cqid}: ${queue.cqHead} to ${queue.cqTail} of ${queue.cqSize}`,
          queue.interrupts ? `vector ${queue.vector}` : 'polled',
        ];
        for (const [i, text] of texts.entries()) if (text !== undefined) setText(figures[i], text);
      },
    );
  }

  /** @param {Vm} vm */
  show(vm) {
    this.#vm = vm;
    const { subsystem, listener } = vm;
    const controller = listener?.controller;
    const facts = [
      subsystem.nqn,
      ...(listener === undefined ? [] : [listener.socket]),
      `serial number ${subsystem.serialNumber}`,
    ];
    if (controller !== undefined) {
      const since = new Date(controller.connectedAt);
      facts.push(
        `controller ${controller.cntlid}, connected since ${since.toLocaleDateString()} ${clock(since)}`,
      );
    }
    setText(this.#facts, facts.join(' · '));
    this.#commandLine.hidden = listener === undefined;
    this.#removeSocket.hidden = listener === undefined || subsystem.listeners.length < 2;

    this.#noNamespaces.hidden = subsystem.namespaces.length > 0;
    this.#namespaceTable.hidden = subsystem.namespaces.length === 0;
    this.namespaces.show(
      subsystem.namespaces.map((namespace) => ({
        key: `${namespace.nsid} ${namespace.bdev}`,
        item: namespace,
      })),
    );
    const queues = controller?.queues ?? [];
    this.#noQueues.hidden = queues.length > 0;
    this.#queueTable.hidden = queues.length === 0;
    this.queues.show(queues.map((queue) => ({ key: `${queue.qid}`, item: queue })));
  }

  /** @param {HTMLElement[]} figures @param {Namespace} namespace */
  #showNamespace(figures, { nsid, bdev }) {
    if (this.#vm === undefined) return;
    const { subsystem, listener, model } = this.#vm;
    const disk = model.snapshot?.bdevs.find(({ name }) => name === bdev);
    const io = listener?.controller?.namespaces.find((namespace) => namespace.nsid === nsid)?.io;
    const rates = model.rates.get(namespaceKey(subsystem.nqn, listener?.socket, nsid));
    const [p50, p99] = percentiles(rates?.latency ?? [], [0.5, 0.99]);
    const texts = [
      `${nsid}`,
      bdev,
      bytes(disk && disk.numBlocks * disk.blockSize),
      count(rates && rates.readOps + rates.writeOps + rates.otherOps),
      byteRate(rates && rates.readBytes + rates.writeBytes),
      latency(p50),
      latency(p99),
      io === undefined ? NONE : exact(io.readOps),
      io === undefined ? NONE : exact(io.writeOps),
    ];
    for (const [i, text] of texts.entries()) setText(figures[i], text);
  }
}
