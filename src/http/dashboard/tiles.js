/** The figures of now, each in a tile: what the whole target does. */

import { h, setAttribute, setText } from './dom.js';
import { byteRate, bytes, count, exact, latency, NONE, percent, plural } from './format.js';
import { percentiles } from './latency.js';
import { ALL, commands } from './rates.js';

/** @typedef {import('./model.js').Model} Model */

/** @param {string} id @param {string} label */
function tile(id, label) {
  const value = h('dd', { class: 'value', id: `tile-${id}` });
  const detail = h('dd', { class: 'detail', id: `tile-${id}-detail` });
  return { element: h('dl', { class: 'tile' }, h('dt', {}, label), value, detail), value, detail };
}

export class Tiles {
  #iops = tile('iops', 'IOPS');
  #throughput = tile('throughput', 'Throughput');
  #latency = tile('latency', 'Latency p99');
  #vms = tile('vms', 'VMs connected');
  #load = tile('load', 'Reactor load');
  #memory = tile('memory', 'Memory');

  /** @param {Element} parent */
  constructor(parent) {
    const tiles = [
      this.#iops,
      this.#throughput,
      this.#latency,
      this.#vms,
      this.#load,
      this.#memory,
    ];
    parent.append(...tiles.map(({ element }) => element));
  }

  /** @param {Model} model */
  show({ snapshot, rates, loads }) {
    if (snapshot === undefined) return;
    const all = rates.get(ALL);
    const done = snapshot.bdevs.reduce((sum, { io }) => sum + commands(io), 0);
    setText(this.#iops.value, count(all && all.readOps + all.writeOps + all.otherOps));
    setText(this.#iops.detail, `read ${count(all?.readOps)} · write ${count(all?.writeOps)}`);
    setAttribute(
      this.#iops.element,
      'title',
      `${exact(done)} commands since the disks were created`,
    );

    setText(this.#throughput.value, byteRate(all && all.readBytes + all.writeBytes));
    setText(
      this.#throughput.detail,
      `read ${bytes(all?.readBytes)} · write ${bytes(all?.writeBytes)}`,
    );

    const [p50, p99, p999] = percentiles(all?.latency ?? [], [0.5, 0.99, 0.999]);
    setText(this.#latency.value, latency(p99));
    setText(this.#latency.detail, `p50 ${latency(p50)} · p99.9 ${latency(p999)}`);

    const listeners = snapshot.subsystems.flatMap((subsystem) => subsystem.listeners);
    const connected = listeners.filter(({ controller }) => controller !== undefined).length;
    setText(this.#vms.value, `${connected}`);
    setText(this.#vms.detail, `of ${plural(listeners.length, 'socket')}`);

    const shares = [...loads.values()];
    const mean = shares.reduce((sum, share) => sum + share, 0) / shares.length;
    setText(this.#load.value, shares.length === 0 ? NONE : percent(mean));
    const busiest = shares.length === 0 ? '' : ` · busiest ${percent(Math.max(...shares))}`;
    setText(this.#load.detail, `${plural(snapshot.reactors.length, 'reactor')}${busiest}`);

    setText(this.#memory.value, bytes(snapshot.memory.rss));
    setText(this.#memory.detail, `of guests ${bytes(snapshot.memory.guestBytes)}`);
  }
}
