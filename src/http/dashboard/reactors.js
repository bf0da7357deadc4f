/** The reactors: how busy each is, and with how many guests and queues. */

import { h, KeyedList, meter, setAttribute, setText } from './dom.js';
import { percent, plural } from './format.js';

/**
 * @typedef {import('./model.js').Model} Model
 * @typedef {import('../../target/snapshot.ts').ReactorSnapshot} Reactor
 * @typedef {{ reactor: Reactor, load: number | undefined }} Item
 */

/** From here on, the bar warns. */
const BUSY = 0.8;

/** @param {Item} item */
function create({ reactor: { index, core } }) {
  const load = meter(`Load of reactor ${index}`);
  const share = h('span', { class: 'figure' });
  const detail = h('span', { class: 'detail' });
  const name = h('span', {}, `Reactor ${index} `, h('span', { class: 'muted' }, `CPU ${core}`));
  return {
    element: h('li', { class: 'reactor' }, name, load.element, share, detail),
    load,
    share,
    detail,
  };
}

export class Reactors {
  #list = h('ul', { class: 'reactors' });
  #rows = new KeyedList(this.#list, create, (view, /** @type {Item} */ { reactor, load }) => {
    view.load.set(load, percent(load));
    const level = !reactor.alive ? 'lost' : (load ?? 0) >= BUSY ? 'busy' : 'fine';
    setAttribute(view.element, 'data-level', level);
    setText(view.share, reactor.alive ? percent(load) : 'lost');
    setText(
      view.detail,
      reactor.controllers === 0
        ? `no queues`
        : `${plural(reactor.controllers, 'VM')}, ${plural(reactor.queuePairs, 'queue')}`,
    );
  });

  /** @param {Element} parent */
  constructor(parent) {
    parent.append(this.#list);
  }

  /** @param {Model} model */
  show({ snapshot, loads }) {
    this.#rows.show(
      (snapshot?.reactors ?? []).map((reactor) => ({
        key: `${reactor.index} ${reactor.core}`,
        item: { reactor, load: loads.get(reactor.index) },
      })),
    );
  }
}
