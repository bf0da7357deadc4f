/** The table of disks: what the target has, who uses it, and what it does. */

import { h, setAttribute, setText } from './dom.js';
import { byteRate, bytes, count, exact, latency, shortNqn } from './format.js';
import { percentiles } from './latency.js';
import { commands, diskKey } from './rates.js';
import { Table, textCell } from './table.js';

/**
 * @typedef {import('./model.js').Model} Model
 * @typedef {import('./rates.js').Rates} Rates
 * @typedef {import('./actions.js').Actions} Actions
 * @typedef {import('../../target/snapshot.ts').BdevSnapshot} Bdev
 * @typedef {{ bdev: Bdev, rates: Rates | undefined }} Disk
 */

/** What the modules are for an operator. @type {Readonly<Record<string, string>>} */
const KINDS = { aio: 'file', uring: 'file', malloc: 'RAM' };

/** @param {Disk} disk */
const size = ({ bdev }) => bdev.numBlocks * bdev.blockSize;
/** @param {Disk} disk */
const iops = ({ rates }) => rates && rates.readOps + rates.writeOps + rates.otherOps;
/** @param {Disk} disk */
const throughput = ({ rates }) => rates && rates.readBytes + rates.writeBytes;
/** @param {Disk} disk */
const p99 = ({ rates }) => percentiles(rates?.latency ?? [], [0.99])[0];
/** @param {Disk} disk */
const user = ({ bdev }) => (bdev.claimedBy === undefined ? 'nobody' : shortNqn(bdev.claimedBy));

class DiskDetail {
  /** @type {Disk | undefined} */
  #disk;
  #facts = h('p', { class: 'muted facts' });
  /** @type {HTMLButtonElement} */
  #resize;
  /** @type {HTMLButtonElement} */
  #limits;
  #actions;

  /** @param {Actions} actions */
  constructor(actions) {
    /** @param {string} label @param {(bdev: Bdev) => void} act @param {string} [style] */
    const button = (label, act, style) =>
      h(
        'button',
        { type: 'button', class: style, onclick: () => this.#disk && act(this.#disk.bdev) },
        label,
      );
    this.#actions = actions;
    this.#resize = button('Resize', (bdev) => actions.resize(bdev));
    this.#limits = button('Limits', (bdev) => actions.limits(bdev));
    const remove = button('Delete disk', (bdev) => actions.deleteDisk(bdev), 'danger');
    this.element = h(
      'div',
      { class: 'detail-box' },
      this.#facts,
      h('p', { class: 'buttons' }, this.#resize, this.#limits, remove),
    );
  }

  /** @param {Disk} disk */
  show(disk) {
    this.#disk = disk;
    const { module, uuid, io, blockSize } = disk.bdev;
    const facts = [
      `${module} bdev`,
      `UUID ${uuid}`,
      `blocks of ${blockSize} bytes`,
      `${exact(commands(io))} commands`,
      `read ${exact(io.readOps)} times, ${bytes(io.readBytes)}`,
      `written ${exact(io.writeOps)} times, ${bytes(io.writeBytes)}`,
    ];
    setText(this.#facts, facts.join(' · '));
    this.#resize.hidden = !this.#actions.canResize(disk.bdev);
    this.#limits.hidden = !this.#actions.canLimit;
  }
}

function nameCell() {
  const element = h('strong');
  return {
    element,
    /** @param {Disk} disk */
    show: ({ bdev }) => setText(element, bdev.name),
  };
}

function userCell() {
  const element = h('span');
  return {
    element,
    /** @param {Disk} disk */
    show(disk) {
      setText(element, user(disk));
      setAttribute(element, 'class', disk.bdev.claimedBy === undefined ? 'muted' : undefined);
      setAttribute(element, 'title', disk.bdev.claimedBy);
    },
  };
}

export class Disks {
  #empty = h('p', { class: 'empty' }, 'No disks.');
  /** @type {Table<Disk>} */
  #table;

  /** @param {Element} parent @param {Actions} actions */
  constructor(parent, actions) {
    this.#table = new Table({
      label: 'Disks',
      key: ({ bdev }) => diskKey(bdev.name),
      title: ({ bdev }) => bdev.name,
      detail: () => new DiskDetail(actions),
      columns: [
        { name: 'Disk', sort: ({ bdev }) => bdev.name, cell: nameCell },
        {
          name: 'Kind',
          sort: ({ bdev }) => bdev.module,
          cell: textCell(({ bdev }) => KINDS[bdev.module] ?? bdev.module),
        },
        { name: 'Used by', sort: user, cell: userCell },
        { name: 'Size', class: 'number', sort: size, cell: textCell((disk) => bytes(size(disk))) },
        {
          name: 'IOPS',
          class: 'number',
          sort: (disk) => iops(disk) ?? -1,
          cell: textCell((disk) => count(iops(disk))),
        },
        {
          name: 'Throughput',
          class: 'number',
          sort: (disk) => throughput(disk) ?? -1,
          cell: textCell((disk) => byteRate(throughput(disk))),
        },
        {
          name: 'p99',
          class: 'number wide-only',
          sort: (disk) => p99(disk) ?? -1,
          cell: textCell((disk) => latency(p99(disk))),
        },
      ],
    });
    parent.append(this.#empty, this.#table.element);
  }

  /** @param {Model} model */
  show({ snapshot, rates }) {
    const bdevs = snapshot?.bdevs ?? [];
    this.#empty.hidden = bdevs.length > 0;
    this.#table.element.hidden = bdevs.length === 0;
    this.#table.show(bdevs.map((bdev) => ({ bdev, rates: rates.get(diskKey(bdev.name)) })));
  }
}
