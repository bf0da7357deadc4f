/** Latencies over time: how many commands took how long, as shades of one colour. One column a point, one row half an octave. */

import { FOOT, GUTTER, MARGIN, short } from './charts.js';
import { h, setText } from './dom.js';
import { clock, latency, percent } from './format.js';
import { HEAT_ROWS, heatBound } from './latency.js';
import { color, labelFont, onThemeChange } from './theme.js';

const HEAD = 8;
/** Fewest rows that are shown, so that a narrow band does not fill the map. */
const MIN_ROWS = 10;

/** @typedef {{ times: number[], columns: Uint32Array[], range: [number, number] }} HeatData */

export class HeatMap {
  /** @type {HeatData} */
  #data = { times: [], columns: [], range: [0, 1] };
  #rows = { low: 0, high: MIN_ROWS };
  #canvas = h('canvas', {
    role: 'img',
    'aria-label': 'Heat map of latencies over time; the figures are those of the latency chart',
  });
  #note = h('span', { class: 'moment' });
  #box = h('div', { class: 'plot' }, this.#canvas);

  constructor() {
    this.element = h(
      'figure',
      { class: 'chart' },
      h(
        'figcaption',
        {},
        h('span', { class: 'title' }, 'Latency, distribution'),
        h('span', { class: 'ramp', 'aria-hidden': 'true' }),
        h('span', { class: 'key' }, 'more commands'),
        this.#note,
      ),
      this.#box,
    );
    this.#canvas.addEventListener('pointermove', (event) => this.#point(event));
    this.#canvas.addEventListener('pointerleave', () => setText(this.#note, ''));
    new ResizeObserver(() => this.#draw()).observe(this.#box);
    onThemeChange(() => this.#draw());
  }

  /** @param {HeatData} data */
  show(data) {
    this.#data = data;
    this.#rows = rowsOf(data.columns);
    this.#draw();
  }

  /** Where the map is in the canvas, CSS px. */
  #area() {
    const { clientWidth, clientHeight } = this.#box;
    return {
      left: GUTTER,
      top: HEAD,
      width: Math.max(clientWidth - GUTTER - MARGIN, 1),
      height: Math.max(clientHeight - FOOT - HEAD, 1),
    };
  }

  #draw() {
    const { clientWidth, clientHeight } = this.#box;
    const context = this.#canvas.getContext('2d');
    if (context === null || clientWidth === 0) return;
    const scale = devicePixelRatio;
    const width = Math.round(clientWidth * scale);
    const height = Math.round(clientHeight * scale);
    if (this.#canvas.width !== width || this.#canvas.height !== height) {
      this.#canvas.width = width;
      this.#canvas.height = height;
    }
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, clientWidth, clientHeight);
    this.#drawAxes(context);
    this.#drawCells(context);
  }

  /** @param {CanvasRenderingContext2D} context */
  #drawAxes(context) {
    const { left, top, width, height } = this.#area();
    const { low, high } = this.#rows;
    context.font = labelFont();
    context.fillStyle = color('--muted');
    context.strokeStyle = color('--grid');
    context.lineWidth = 1;
    context.textAlign = 'right';
    context.textBaseline = 'middle';
    const first = Math.ceil(Math.log10(heatBound(low - 1)) - 1e-9);
    const last = Math.log10(heatBound(high));
    for (let power = first; power <= last; power++) {
      const row = Math.log2(10 ** power / heatBound(low - 1)) * 2;
      const y = Math.round(top + height - (row / (high - low + 1)) * height) + 0.5;
      context.beginPath();
      context.moveTo(left, y);
      context.lineTo(left + width, y);
      context.stroke();
      context.fillText(short(latency(10 ** power)), left - 5, y);
    }
    context.textAlign = 'center';
    context.textBaseline = 'top';
    const [from, to] = this.#data.range;
    const step = tickStep(to - from, width);
    for (let time = Math.ceil(from / step) * step; time <= to; time += step) {
      const x = left + ((time - from) / (to - from)) * width;
      context.fillText(
        clock(new Date(time * 1000)).slice(0, to - from > 200 ? 5 : 8),
        x,
        top + height + 5,
      );
    }
  }

  /** @param {CanvasRenderingContext2D} context */
  #drawCells(context) {
    const { left, top, width, height } = this.#area();
    const { low, high } = this.#rows;
    const { times, columns, range } = this.#data;
    const [from, to] = range;
    const rowHeight = height / (high - low + 1);
    const pointWidth = width / (to - from);
    let most = 1;
    for (const column of columns)
      for (let i = 1; i < column.length; i += 2) most = Math.max(most, column[i]);
    context.fillStyle = color('--heat');
    for (const [index, column] of columns.entries()) {
      const right = left + (times[index] - from) * pointWidth;
      // A column covers the time since the point before, so that no pixel stays empty between them.
      const since = index > 0 ? times[index - 1] : times[index] - 1;
      const x = Math.max(left, Math.floor(right - Math.min(times[index] - since, 2) * pointWidth));
      for (let i = 0; i < column.length; i += 2) {
        context.globalAlpha = 0.1 + 0.9 * (Math.log(1 + column[i + 1]) / Math.log(1 + most));
        const bottom = Math.round(top + height - (column[i] - low) * rowHeight);
        const cellTop = Math.round(top + height - (column[i] - low + 1) * rowHeight);
        context.fillRect(x, cellTop, Math.floor(right) - x, bottom - cellTop);
      }
    }
    context.globalAlpha = 1;
  }

  /** @param {PointerEvent} event */
  #point(event) {
    const { left, top, width, height } = this.#area();
    const { low, high } = this.#rows;
    const { times, columns, range } = this.#data;
    const row = low + Math.floor(((top + height - event.offsetY) / height) * (high - low + 1));
    const time = range[0] + ((event.offsetX - left) / width) * (range[1] - range[0]);
    const index = times.findIndex((end) => end >= time);
    if (
      index === -1 ||
      columns[index].length === 0 ||
      row < low ||
      row > high ||
      event.offsetX < left
    ) {
      setText(this.#note, '');
      return;
    }
    const column = columns[index];
    let n = 0;
    let all = 0;
    for (let i = 0; i < column.length; i += 2) {
      all += column[i + 1];
      if (column[i] === row) n = column[i + 1];
    }
    const band = `${latency(heatBound(row - 1))} to ${latency(heatBound(row))}`;
    setText(this.#note, `${clock(new Date(times[index] * 1000))} · ${band}: ${percent(n / all)}`);
  }
}

/** @param {readonly Uint32Array[]} columns @returns {{ low: number, high: number }} the rows that are used, and one more at each end */
function rowsOf(columns) {
  let low = HEAT_ROWS;
  let high = -1;
  for (const column of columns) {
    for (let i = 0; i < column.length; i += 2) {
      low = Math.min(low, column[i]);
      high = Math.max(high, column[i]);
    }
  }
  if (high === -1) return { low: 0, high: 2 * MIN_ROWS };
  low = Math.max(low - 1, 0);
  return { low, high: Math.min(Math.max(high + 1, low + MIN_ROWS), HEAT_ROWS - 1) };
}

/** @param {number} seconds @param {number} width px @returns {number} s between two labels */
function tickStep(seconds, width) {
  const steps = [10, 15, 30, 60, 120, 300, 600];
  return steps.find((step) => (step / seconds) * width >= 70) ?? 600;
}
