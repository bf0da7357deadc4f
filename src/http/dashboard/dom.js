/**
 * Elements, made and changed. Names come from guests and operators, so text only ever becomes text: nothing here parses HTML.
 */

/**
 * @typedef {Record<string, string | number | boolean | undefined | ((event: any) => void)>} Attributes
 * @typedef {Node | string | undefined} Child
 */

/**
 * An element. Attributes whose name begins with `on` are listeners; `true` sets an empty attribute, `false` and `undefined` none.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Attributes} [attributes]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(name.slice(2), value);
    else setAttribute(element, name, value);
  }
  for (const child of children) if (child !== undefined) element.append(child);
  return element;
}

/**
 * @param {Element} element
 * @param {string} name
 * @param {string | number | boolean | undefined} value
 */
export function setAttribute(element, name, value) {
  if (value === undefined || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
    return;
  }
  const text = value === true ? '' : String(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

/**
 * Only touches the document if the text is another.
 *
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * The element of the page with this id.
 *
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no #${id}`);
  return element;
}

/** Whatever is kept for an item of a list, with the element that shows it. @typedef {{ readonly element: Element }} Shown */

/**
 * Keeps the children of an element in step with a list: what is gone is removed, what is new is made, all are updated. Elements only move
 * if the order changed.
 *
 * @template Item
 * @template {Shown} View
 */
export class KeyedList {
  /** @type {Map<string, View>} */
  #views = new Map();

  /**
   * @param {Element} parent
   * @param {(item: Item) => View} create
   * @param {(view: View, item: Item) => void} update
   */
  constructor(parent, create, update) {
    this.parent = parent;
    this.create = create;
    this.update = update;
  }

  /** @param {readonly { key: string, item: Item }[]} entries */
  show(entries) {
    const keys = new Set(entries.map(({ key }) => key));
    for (const [key, view] of this.#views) {
      if (keys.has(key)) continue;
      view.element.remove();
      this.#views.delete(key);
    }
    let next = this.parent.firstElementChild;
    for (const { key, item } of entries) {
      const view = this.#views.get(key) ?? this.create(item);
      this.#views.set(key, view);
      this.update(view, item);
      if (view.element === next) next = next.nextElementSibling;
      else this.parent.insertBefore(view.element, next);
    }
  }
}

/**
 * A bar that shows a share.
 *
 * @param {string} label what is measured, for those who cannot see it
 */
export function meter(label) {
  const bar = h('span', { class: 'bar' });
  const element = h(
    'span',
    {
      class: 'meter',
      role: 'meter',
      'aria-label': label,
      'aria-valuemin': 0,
      'aria-valuemax': 100,
    },
    bar,
  );
  return {
    element,
    /** @param {number | undefined} share 0 to 1 @param {string} [text] */
    set(share, text) {
      const value = Math.round(Math.min(share ?? 0, 1) * 100);
      const width = `${value}%`;
      if (bar.style.width !== width) bar.style.width = width;
      setAttribute(element, 'aria-valuenow', value);
      setAttribute(element, 'aria-valuetext', text);
    },
  };
}
