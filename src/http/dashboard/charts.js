/** Line charts over the last minutes, with a legend that tells the figures of now, or of the moment under the pointer. */

// Before uPlot, which reads it as it is loaded.
import './locale.js';
import uPlot from '/uplot/uPlot.esm.js';
import { h, setText } from './dom.js';
import { clock } from './format.js';
import { color, labelFont, onThemeChange } from './theme.js';

/**
 * @typedef {object} Series
 * @property {string} label
 * @property {string} color a custom property of style.css
 */

/**
 * @typedef {object} ChartOptions
 * @property {string} title
 * @property {readonly Series[]} series
 * @property {(value: number | undefined) => string} format
 * @property {number} [least] what an axis from 0 reaches at least
 * @property {boolean} [binary] steps of powers of two
 * @property {boolean} [log] decades instead of a scale from 0
 */

/** Width of the vertical axis: the same for all, so that moments stand above each other. px */
export const GUTTER = 62;
/** Height of the horizontal axis. px */
export const FOOT = 24;
/** Room right of the last point, for half a label of the axis. px */
export const MARGIN = 14;

const BINARY_STEPS = Array.from({ length: 50 }, (_, power) => 2 ** power);

/** The pointer's moment is shown by all charts at the same time. */
const SYNC = uPlot.sync('time');

export class LineChart {
  /** @type {uPlot | undefined} */
  #plot;
  /** @type {uPlot.AlignedData} */
  #data = [[]];
  /** @type {[number, number]} */
  #range = [0, 1];
  #box = h('div', { class: 'plot' });
  #moment = h('span', { class: 'moment' });
  /** @type {HTMLElement[]} */
  #values = [];

  /** @param {ChartOptions} options */
  constructor(options) {
    this.options = options;
    this.element = h(
      'figure',
      { class: 'chart' },
      h(
        'figcaption',
        {},
        h('span', { class: 'title' }, options.title),
        ...options.series.map((series) => {
          const value = h('span', { class: 'value' });
          this.#values.push(value);
          const key = h('span', { class: 'swatch', 'aria-hidden': 'true' });
          key.style.background = `var(${series.color})`;
          return h('span', { class: 'key' }, key, `${series.label} `, value);
        }),
        this.#moment,
      ),
      this.#box,
    );
    new ResizeObserver(() => this.#resize()).observe(this.#box);
    onThemeChange(() => this.#rebuild());
  }

  /**
   * @param {number[]} times Unix, s
   * @param {(number | null)[][]} columns one for each series
   * @param {[number, number]} range of time that is shown
   */
  show(times, columns, range) {
    this.#data = /** @type {uPlot.AlignedData} */ ([times, ...columns]);
    this.#range = range;
    if (this.#plot === undefined) this.#rebuild();
    else this.#plot.setData(this.#data);
    this.#describe();
  }

  #resize() {
    const { clientWidth: width, clientHeight: height } = this.#box;
    if (width > 0 && height > 0) this.#plot?.setSize({ width, height });
  }

  #rebuild() {
    this.#plot?.destroy();
    const { clientWidth: width, clientHeight: height } = this.#box;
    const { series, format, log = false, binary = false, least = 1 } = this.options;
    const axis = {
      stroke: color('--muted'),
      font: labelFont(),
      grid: { stroke: color('--grid'), width: 1 },
      ticks: { show: false },
    };
    this.#plot = new uPlot(
      {
        width: Math.max(width, 1),
        height: Math.max(height, 1),
        padding: [8, MARGIN, 0, 0],
        legend: { show: false },
        cursor: {
          y: false,
          points: { show: false },
          drag: { x: false, y: false },
          sync: { key: SYNC.key },
        },
        scales: {
          x: { time: true, range: () => this.#range },
          y: log
            ? { distr: 3, range: (_plot, min, max) => decades(min, max) }
            : { range: (_plot, _min, max) => [0, Math.max((max ?? 0) * 1.08, least)] },
        },
        axes: [
          {
            ...axis,
            size: FOOT,
            space: 70,
            values: (_plot, ticks) =>
              ticks.map((time) =>
                clock(new Date(time * 1000)).slice(
                  0,
                  this.#range[1] - this.#range[0] > 200 ? 5 : 8,
                ),
              ),
          },
          {
            ...axis,
            size: GUTTER,
            space: 28,
            ...(binary && { incrs: BINARY_STEPS }),
            ...(log && { splits: (_plot, _axis, min, max) => decadesBetween(min, max) }),
            values: (_plot, ticks) => ticks.map((value) => short(format(value))),
          },
        ],
        series: [
          {},
          ...series.map(({ color: name }) => ({
            stroke: color(name),
            fill: log ? undefined : `color-mix(in srgb, ${color(name)} 12%, transparent)`,
            width: 1.5,
            points: { show: false },
          })),
        ],
        hooks: { setCursor: [() => this.#describe()] },
      },
      this.#data,
      this.#box,
    );
  }

  /** The figures under the pointer, or the last. */
  #describe() {
    const [times, ...columns] = this.#data;
    const pointed = this.#plot?.cursor.idx ?? undefined;
    const index = pointed ?? times.length - 1;
    for (const [i, value] of this.#values.entries()) {
      setText(value, this.options.format(columns[i]?.[index] ?? undefined));
    }
    const time = times[index];
    setText(
      this.#moment,
      pointed === undefined || time === undefined ? '' : clock(new Date(time * 1000)),
    );
  }
}

/** @param {number | null} min @param {number | null} max @returns {[number, number]} */
function decades(min, max) {
  if (min === null || max === null || !(min > 0)) return [1e3, 1e6];
  const low = 10 ** Math.floor(Math.log10(min));
  return [low, Math.max(10 ** Math.ceil(Math.log10(max)), low * 10)];
}

/** @param {number} min @param {number} max @returns {number[]} */
function decadesBetween(min, max) {
  const decades = [];
  for (let value = min; value <= max * 1.01; value *= 10) decades.push(value);
  return decades;
}

/** Without zeros at the end: a label of an axis is a round figure. @param {string} figure */
export function short(figure) {
  return figure.replace(/\.(\d*?)0+(?=\D|$)/, (_all, kept) => (kept === '' ? '' : `.${kept}`));
}
