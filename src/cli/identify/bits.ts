/** What the bits of a field mean, as data: for `--human-readable`. */

/** Bits `high` to `low` of a field, and what a value of them means. */
export interface Bits {
  readonly high: number;
  readonly low: number;
  readonly text: (value: number) => string;
}

/** One bit: a capability that is there or not. */
export const capability = (bit: number, name: string): Bits =>
  either(bit, `${name} Supported`, `${name} Not Supported`);

/** One bit with a text for each value. */
export const either = (bit: number, set: string, clear: string): Bits => ({
  high: bit,
  low: bit,
  text: (value) => (value === 1 ? set : clear),
});

/** A number of several bits. */
export const amount = (
  high: number,
  low: number,
  text: string | ((value: number) => string),
): Bits => ({ high, low, text: typeof text === 'string' ? () => text : text });

/** A value of several bits with a text each; others are reserved. */
export const choice = (
  high: number,
  low: number,
  texts: Readonly<Record<number, string>>,
): Bits => ({ high, low, text: (value) => texts[value] ?? 'Reserved' });

/** The bits of a value, each as a line like `  [3:0] : 0x6	Min SQ Entry Size (64)`. */
export function explainBits(value: bigint, bits: readonly Bits[]): string[] {
  return bits.map(({ high, low, text }) => {
    const part = Number((value >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n));
    return `  [${high}:${low}] : ${hex(part)}\t${text(part)}`;
  });
}

/** As C's `%#x`: zero has no prefix. */
export const hex = (value: number | bigint): string =>
  Number(value) === 0 ? '0' : `0x${value.toString(16)}`;
