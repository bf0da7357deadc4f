/** The Changed Namespace List: those that came, went or changed since it was read. NVMe Base 2.0 §5.16.1.5. Owned by main. */
import { NSID_ALL } from '../../spec/nvme.ts';

/** NSIDs in the list; more are told by FFFFFFFFh alone. */
const MAX_CHANGED = 1024;

export class ChangedNamespaces {
  readonly #nsids = new Set<number>();

  add(nsid: number): void {
    this.#nsids.add(nsid);
  }

  /** The host read the list, or reset the controller. */
  clear(): void {
    this.#nsids.clear();
  }

  page(): Uint8Array {
    const out = new Uint8Array(4 * MAX_CHANGED);
    const nsids = [...this.#nsids].sort((a, b) => a - b);
    const view = new DataView(out.buffer);
    for (const [i, nsid] of (nsids.length > MAX_CHANGED ? [NSID_ALL] : nsids).entries()) {
      view.setUint32(4 * i, nsid, true);
    }
    return out;
  }
}
