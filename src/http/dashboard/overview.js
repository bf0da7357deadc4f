/** The charts, of the whole target, a VM or a namespace, over the last minutes. */

import { LineChart } from './charts.js';
import { h, setAttribute } from './dom.js';
import { byteRate, count, latency, shortNqn } from './format.js';
import { HeatMap } from './heatmap.js';
import { ALL, diskKey, namespaceKey, vmKey } from './rates.js';

/**
 * @typedef {import('./model.js').Model} Model
 * @typedef {import('./history.js').Column} Column
 */

const RANGES = [
  { seconds: 60, label: '1 min' },
  { seconds: 300, label: '5 min' },
  { seconds: 600, label: '10 min' },
];
const READ_WRITE = [
  { label: 'read', color: '--read' },
  { label: 'write', color: '--write' },
];

export class Overview {
  #key = ALL;
  #seconds = 60;
  /** What the choices were made from. */
  #scopes = '';
  /** @type {{ chart: LineChart, columns: Column[] }[]} */
  #charts = [
    {
      chart: new LineChart({ title: 'IOPS', series: READ_WRITE, format: count, least: 4 }),
      columns: ['readOps', 'writeOps'],
    },
    {
      chart: new LineChart({
        title: 'Throughput',
        series: READ_WRITE,
        format: byteRate,
        binary: true,
        least: 4096,
      }),
      columns: ['readBytes', 'writeBytes'],
    },
    {
      chart: new LineChart({
        title: 'Latency',
        series: [
          { label: 'p50', color: '--p50' },
          { label: 'p99', color: '--p99' },
          { label: 'p99.9', color: '--p999' },
        ],
        format: latency,
        log: true,
      }),
      columns: ['p50', 'p99', 'p999'],
    },
  ];
  #heat = new HeatMap();

  /** @param {{ charts: Element, scope: HTMLSelectElement, range: Element, model: Model }} places */
  constructor({ charts, scope, range, model }) {
    this.scope = scope;
    this.model = model;
    charts.append(...this.#charts.map(({ chart }) => chart.element), this.#heat.element);
    scope.addEventListener('change', () => {
      this.#key = scope.value;
      this.show();
    });
    const buttons = RANGES.map(({ seconds, label }) =>
      h(
        'button',
        {
          type: 'button',
          'aria-pressed': String(seconds === this.#seconds),
          onclick: () => select(seconds),
        },
        label,
      ),
    );
    const select = (/** @type {number} */ chosen) => {
      this.#seconds = chosen;
      for (const [i, { seconds }] of RANGES.entries()) {
        setAttribute(buttons[i], 'aria-pressed', String(seconds === chosen));
      }
      this.show();
    };
    range.append(...buttons);
  }

  show() {
    const { snapshot, history } = this.model;
    if (snapshot === undefined) return;
    this.#showScopes();
    const now = Date.parse(snapshot.time) / 1000;
    /** @type {[number, number]} */
    const range = [now - this.#seconds, now];
    const times = history.times(this.#seconds);
    for (const { chart, columns } of this.#charts) {
      chart.show(
        times,
        columns.map((name) => history.column(this.#key, name, this.#seconds)),
        range,
      );
    }
    this.#heat.show({ times, columns: history.heat(this.#key, this.#seconds), range });
  }

  /** Offers what there is. A choice that is gone falls back to the whole. */
  #showScopes() {
    const { subsystems = [], bdevs = [] } = this.model.snapshot ?? {};
    const vms = subsystems.flatMap(({ nqn, listeners, namespaces }) =>
      listeners.map(({ socket }) => {
        const name = listeners.length > 1 ? `${shortNqn(nqn)} ${socket}` : shortNqn(nqn);
        return {
          label: name,
          options: [
            { value: vmKey(nqn, socket), label: name },
            ...namespaces.map(({ nsid, bdev }) => ({
              value: namespaceKey(nqn, socket, nsid),
              label: `${name}, namespace ${nsid} (${bdev})`,
            })),
          ],
        };
      }),
    );
    const disks = bdevs.map(({ name }) => ({ value: diskKey(name), label: `disk ${name}` }));
    const now = JSON.stringify([vms, disks]);
    if (now === this.#scopes) return;
    this.#scopes = now;
    const option = (/** @type {{ value: string, label: string }} */ { value, label }) =>
      h('option', { value }, label);
    this.scope.replaceChildren(
      option({ value: ALL, label: 'all VMs' }),
      ...vms.map(({ label, options }) => h('optgroup', { label }, ...options.map(option))),
      ...(disks.length === 0 ? [] : [h('optgroup', { label: 'Disks' }, ...disks.map(option))]),
    );
    this.scope.value = this.#key;
    if (this.scope.selectedIndex === -1) {
      this.#key = ALL;
      this.scope.value = ALL;
    }
  }
}
