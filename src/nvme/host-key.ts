/** The names of hosts among the controllers of a subsystem: their identifiers, or their only controller. Owned by main. */

/** `id`: of 8 or 16 bytes. Zero: the host is told from all others by its controller. */
export function hostKey(id: Uint8Array, cntlid: number): string {
  return id.every((byte) => byte === 0) ? `controller ${cntlid}` : Buffer.from(id).toString('hex');
}

/** The identifier in a name: zeros, if it has none. */
export function hostIdOf(name: string): Uint8Array {
  return name.startsWith('controller')
    ? new Uint8Array(8)
    : Uint8Array.from(Buffer.from(name, 'hex'));
}

/** Another controller can be of the same host, also one that comes later. */
export function isLasting(name: string): boolean {
  return !name.startsWith('controller');
}
