/**
 * Tables whose rows can be opened to show more, and sorted by a column. On a narrow screen the style sheet makes each row a card; the roles
 * are set so that they stay tables for screen readers.
 */

import { h, setAttribute, setText } from './dom.js';

/**
 * @template Item
 * @typedef {object} ColumnOf
 * @property {string} name
 * @property {string} [class]
 * @property {(item: Item) => number | string} sort what the rows are sorted by
 * @property {() => { element: Node, show(item: Item): void }} cell
 */

/**
 * @template Item
 * @typedef {object} TableOptions
 * @property {string} label
 * @property {readonly ColumnOf<Item>[]} columns
 * @property {(item: Item) => string} key
 * @property {(item: Item) => string} title what the row is called
 * @property {() => { element: Element, show(item: Item): void }} detail what an open row shows
 */

/**
 * @template Item
 * @typedef {object} Row
 * @property {HTMLElement} element
 * @property {HTMLElement} more what is below it when it is open
 * @property {(item: Item) => void} show
 */

/**
 * A cell of text.
 *
 * @template Item
 * @param {(item: Item) => string} text
 */
export function textCell(text) {
  return () => {
    const element = h('span');
    return { element, show: (/** @type {Item} */ item) => setText(element, text(item)) };
  };
}

let tables = 0;

/** @template Item */
export class Table {
  #body = h('tbody', { role: 'rowgroup' });
  /** @type {Map<string, Row<Item>>} */
  #rows = new Map();
  /** @type {HTMLTableCellElement[]} */
  #heads;
  #sorted = { column: 0, down: false };
  /** @type {readonly Item[]} */
  #items = [];
  #id = `table${tables++}`;

  /** @param {TableOptions<Item>} options */
  constructor(options) {
    this.options = options;
    this.#heads = options.columns.map((column, index) =>
      h(
        'th',
        { role: 'columnheader', scope: 'col', class: column.class },
        h(
          'button',
          { type: 'button', class: 'sort', onclick: () => this.#sortBy(index) },
          column.name,
        ),
      ),
    );
    this.element = h(
      'table',
      { role: 'table', 'aria-label': options.label },
      h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, ...this.#heads)),
      this.#body,
    );
    this.#markSorted();
  }

  /** @param {number} column */
  #sortBy(column) {
    // Names from A, figures from the largest.
    const down = this.#sorted.column === column ? !this.#sorted.down : column !== 0;
    this.#sorted = { column, down };
    this.#markSorted();
    this.#arrange();
  }

  #markSorted() {
    const { column, down } = this.#sorted;
    for (const [index, head] of this.#heads.entries()) {
      setAttribute(
        head,
        'aria-sort',
        index !== column ? 'none' : down ? 'descending' : 'ascending',
      );
    }
  }

  /** @param {readonly Item[]} items */
  show(items) {
    this.#items = items;
    const keys = new Set(items.map(this.options.key));
    for (const [key, row] of this.#rows) {
      if (keys.has(key)) continue;
      row.element.remove();
      row.more.remove();
      this.#rows.delete(key);
    }
    for (const item of items) {
      const key = this.options.key(item);
      let row = this.#rows.get(key);
      if (row === undefined) {
        row = this.createRow(key, this.options.title(item));
        this.#rows.set(key, row);
        this.#body.append(row.element, row.more);
      }
      row.show(item);
    }
    // Nobody likes a row that moves away from under the hand.
    const busy = this.#body.matches(':hover') || this.#body.contains(document.activeElement);
    if (!busy || this.#sorted.column === 0) this.#arrange();
  }

  #arrange() {
    const { sort } = this.options.columns[this.#sorted.column];
    const sign = this.#sorted.down ? -1 : 1;
    const ordered = [...this.#items].sort((a, b) => sign * compare(sort(a), sort(b)));
    let next = this.#body.firstElementChild;
    for (const item of ordered) {
      const row = this.#rows.get(this.options.key(item));
      if (row === undefined) continue;
      if (row.element !== next) this.#body.insertBefore(row.element, next);
      if (row.more.previousElementSibling !== row.element) row.element.after(row.more);
      next = row.more.nextElementSibling;
    }
  }

  /** @param {string} key @param {string} title @returns {Row<Item>} */
  createRow(key, title) {
    const { columns, detail } = this.options;
    const id = `${this.#id}-${this.#rows.size}-${key.replaceAll(/\W/g, '')}`;
    const cells = columns.map(({ cell }) => cell());
    /** @type {ReturnType<typeof detail> | undefined} */
    let shown;
    const place = h('td', { role: 'cell', colspan: columns.length });
    const more = h('tr', { role: 'row', class: 'more', id, hidden: true }, place);
    const toggle = h('button', {
      type: 'button',
      class: 'toggle',
      'aria-expanded': 'false',
      'aria-controls': id,
      'aria-label': `Details of ${title}`,
      onclick: () => {
        more.hidden = !more.hidden;
        setAttribute(toggle, 'aria-expanded', String(!more.hidden));
        shown ??= detail();
        place.replaceChildren(...(more.hidden ? [] : [shown.element]));
        if (!more.hidden) shown.show(current);
      },
    });
    /** @type {Item} */
    let current;
    const element = h(
      'tr',
      { role: 'row' },
      ...columns.map((column, index) =>
        h(
          'td',
          { role: 'cell', class: column.class, 'data-label': column.name },
          index === 0 ? toggle : undefined,
          cells[index].element,
        ),
      ),
    );
    return {
      element,
      more,
      show(/** @type {Item} */ item) {
        current = item;
        for (const cell of cells) cell.show(item);
        if (!more.hidden) shown?.show(item);
      },
    };
  }
}

/** @param {number | string} a @param {number | string} b */
function compare(a, b) {
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}
