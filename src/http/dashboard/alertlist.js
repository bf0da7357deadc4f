/** The line at the top: what is not well, or that all is. */

import { findAlerts } from './alerts.js';
import { h } from './dom.js';

/** @typedef {import('./model.js').Model} Model */

/** How many are listed. */
const SHOWN = 8;

export class AlertList {
  #shown = '';

  /** @param {Element} list */
  constructor(list) {
    this.list = list;
  }

  /** @param {Model} model */
  show(model) {
    const alerts = findAlerts(model);
    const more = alerts.length - SHOWN;
    /** @type {{ level: string, text: string }[]} */
    const lines = alerts.slice(0, SHOWN);
    if (more > 0) lines.push({ level: 'warning', text: `And ${more} more.` });
    if (lines.length === 0 && model.snapshot !== undefined) {
      lines.push({ level: 'fine', text: 'All is well.' });
    }
    // Only what changed is read out, so nothing is touched while all stays as it is.
    const now = JSON.stringify(lines);
    if (now === this.#shown) return;
    this.#shown = now;
    this.list.replaceChildren(
      ...lines.map(({ level, text }) => h('li', { 'data-level': level }, text)),
    );
  }
}
