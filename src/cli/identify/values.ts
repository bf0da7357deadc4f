/** A field's value in the form that its table gives it: as text, and for JSON. */
import { formatUuid } from '../../util/uuid.ts';
import { explainBits, hex } from './bits.ts';
import type { Look } from './fields.ts';

/** What {@link Struct.read} gives of a field, or a register. */
export type Value = number | bigint | Uint8Array;

const digits = (data: Uint8Array) => Buffer.from(data).toString('hex');

/** 128 bits, little endian. */
function u128(data: Uint8Array): bigint {
  return BigInt(`0x${digits(Uint8Array.from(data).reverse())}`);
}

/** What a peer wrote as ASCII, without what a terminal would act on. A NUL ends it. */
function ascii(data: Uint8Array): string {
  const text = Buffer.from(data).toString('latin1');
  const end = text.indexOf('\0');
  return (end < 0 ? text : text.slice(0, end)).replace(/[^\x20-\x7e]/g, '?');
}

/** As nvme-cli prints it. */
export function textOf(value: Value, { form = 'decimal' }: Look): string {
  if (!(value instanceof Uint8Array)) {
    return form === 'hex' ? hex(value) : String(value);
  }
  switch (form) {
    case 'text':
      return ascii(value);
    case 'u128':
      return u128(value).toString();
    case 'oui':
      return digits(Uint8Array.from(value).reverse());
    case 'uuid':
      return formatUuid(digits(value));
    default:
      return digits(value);
  }
}

/** As nvme-cli's JSON has it: numbers where they are exact. */
export function jsonOf(value: Value, { form = 'decimal' }: Look): string | number {
  if (!(value instanceof Uint8Array)) {
    return typeof value === 'bigint' ? `0x${value.toString(16)}` : value;
  }
  if (form === 'u128' || form === 'oui') {
    const number = u128(value);
    return number <= Number.MAX_SAFE_INTEGER ? Number(number) : number.toString();
  }
  return textOf(value, { form });
}

/** The lines of one field: its value, and what its bits mean if that is wanted. */
export function fieldLines(
  name: string,
  value: Value,
  look: Look,
  { width, human }: { readonly width: number; readonly human: boolean },
): string[] {
  const line = `${name.padEnd(width)}: ${textOf(value, look)}`;
  if (!human || look.bits === undefined || value instanceof Uint8Array) {
    return [line];
  }
  return [line, ...explainBits(BigInt(value), look.bits), ''];
}
