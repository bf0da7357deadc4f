/**
 * Room for a new client where there are as many as there may be: the one that has been idle for longest goes. A client that is worked for is
 * never idle.
 */

/** What is known of a client. */
export interface Occupant {
  /** Since when it has been idle, by performance.now(); undefined: it is not. */
  readonly idleSince: number | undefined;
}

/** The client to close for a new one, if any is idle. */
export function longestIdle<T extends Occupant>(clients: Iterable<T>): T | undefined {
  let longest: T | undefined;
  let since = Number.POSITIVE_INFINITY;
  for (const client of clients) {
    const { idleSince } = client;
    if (idleSince !== undefined && idleSince < since) {
      longest = client;
      since = idleSince;
    }
  }
  return longest;
}
