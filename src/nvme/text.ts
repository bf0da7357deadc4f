/** Text in structures of NVMe. */

/** ASCII, padded with spaces, as SN, MN and FR want. */
export function padded(text: string, width: number): Uint8Array {
  return new Uint8Array(Buffer.from(text.padEnd(width).slice(0, width), 'latin1'));
}
