/**
 * Guest memory that is lost: its owner has truncated the file, or the hardware has lost a page. The thread that touches it first goes on with
 * zeros (`addon/sigbus.cc`), and an eventfd tells main, which tells whose memory it was. Owned by main.
 */
import { type FdPoll, native } from '../native/index.ts';

/** By the owner that `mapFile` is told. 0 is nobody. */
const watchers = new Map<number, () => void>();
let nextOwner = 1;
let poll: FdPoll | undefined;

/** `lost` is called each time memory of the owner is lost. Returns the owner. */
export function watchMemory(lost: () => void): number {
  const owner = nextOwner++;
  watchers.set(owner, lost);
  if (poll === undefined) {
    const event = native.faultEvent();
    poll = new native.FdPoll(event, () => {
      native.eventfdRead(event);
      for (const owner of native.takeLost()) {
        watchers.get(owner)?.();
      }
    });
    poll.start(true, false);
  }
  return owner;
}

export function unwatchMemory(owner: number): void {
  watchers.delete(owner);
  if (watchers.size === 0) {
    // It would keep the process alive.
    poll?.close();
    poll = undefined;
  }
}
