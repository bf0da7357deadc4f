/** What happened, the newest first. */

import { h, KeyedList } from './dom.js';
import { clock, shortNqn } from './format.js';

/**
 * @typedef {import('./model.js').Model} Model
 * @typedef {import('../../target/events.ts').TargetEvent} TargetEvent
 */

/** How many are shown. */
const SHOWN = 100;

/** Events that need somebody. @type {ReadonlySet<TargetEvent['type']>} */
const BAD = new Set(['error', 'reactor-lost', 'write-back-failed', 'bdev-disconnected']);

/** @param {TargetEvent} event @returns {string} a sentence */
function describe(event) {
  switch (event.type) {
    case 'client-connected':
      return `VM ${shortNqn(event.nqn)} connected`;
    case 'client-gone':
      return `VM ${shortNqn(event.nqn)} disconnected${event.message === undefined ? '' : `: ${event.message}`}`;
    case 'controller-enabled':
      return `VM ${shortNqn(event.nqn)} enabled its controller`;
    case 'controller-disabled':
      return `VM ${shortNqn(event.nqn)} disabled its controller`;
    case 'guest-reset':
      return `VM ${shortNqn(event.nqn)} was reset`;
    case 'guest-shutdown':
      return `VM ${shortNqn(event.nqn)} announced its shutdown`;
    case 'namespace-added':
      return `Disk ${event.bdev} is namespace ${event.nsid} of ${shortNqn(event.nqn)}`;
    case 'namespace-removed':
      return `Disk ${event.bdev} was namespace ${event.nsid} of ${shortNqn(event.nqn)}`;
    case 'namespace-resized':
      return `Disk ${event.bdev} of ${shortNqn(event.nqn)} has another size`;
    case 'subsystem-created':
      return `VM ${shortNqn(event.nqn)} created`;
    case 'subsystem-deleted':
      return `VM ${shortNqn(event.nqn)} deleted`;
    case 'listener-added':
      return `Socket of ${shortNqn(event.nqn)}: ${event.socket}`;
    case 'listener-removed':
      return `Socket of ${shortNqn(event.nqn)} removed: ${event.socket}`;
    case 'bdev-created':
      return `Disk ${event.bdev} created`;
    case 'bdev-deleted':
      return `Disk ${event.bdev} deleted`;
    case 'bdev-reopened':
      return `Disk ${event.bdev} reopened`;
    case 'bdev-connected':
      return `Disk ${event.bdev} is connected again`;
    case 'bdev-disconnected':
      return `Disk ${event.bdev} has lost its server: ${event.message}`;
    case 'write-back-failed':
      return `Disk ${event.bdev}: ${event.message}`;
    case 'queue-moved':
      return `Queue ${event.cqid} of ${shortNqn(event.nqn)} moved from reactor ${event.from} to ${event.reactor}`;
    case 'reactor-lost':
      return `Reactor ${event.reactor} lost: ${event.message}`;
    case 'error': {
      const where = event.nqn === undefined ? event.bdev : `VM ${shortNqn(event.nqn)}`;
      return where === undefined ? event.message : `${where}: ${event.message}`;
    }
  }
}

/** @param {TargetEvent} event */
function create(event) {
  const time = new Date(event.time);
  const bad = BAD.has(event.type);
  const today = time.toDateString() === new Date().toDateString();
  const stamp = today ? clock(time) : `${time.toLocaleDateString()} ${clock(time)}`;
  const element = h(
    'li',
    { 'data-type': event.type, class: bad ? 'bad' : undefined },
    h('time', { datetime: event.time, title: time.toLocaleString() }, stamp),
    h('span', {}, describe(event)),
  );
  return { element };
}

export class EventList {
  #list = h('ol', { class: 'events', tabindex: 0, 'aria-label': 'Events, the newest first' });
  #empty = h('p', { class: 'empty' }, 'Nothing has happened yet.');
  #rows = new KeyedList(this.#list, create, () => {});

  /** @param {Element} parent */
  constructor(parent) {
    parent.append(this.#empty, this.#list);
  }

  /** @param {Model} model */
  show({ events }) {
    this.#empty.hidden = events.length > 0;
    this.#list.hidden = events.length === 0;
    this.#rows.show(
      events
        .slice(-SHOWN)
        .reverse()
        .map((event) => ({ key: `${event.seq} ${event.time}`, item: event })),
    );
  }
}
