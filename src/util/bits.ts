/**
 * Bit fields of a number, declared once as data: name, lowest bit, width. For registers, command dwords and flag fields of structures.
 *
 * A declaration gives masks (constants for the hot path), and conversion between the number and its fields (for everything else).
 */

export interface FlagField {
  readonly kind: 'flag';
  readonly shift: number;
  readonly width: 1;
}

export interface NumberBits {
  readonly kind: 'bits';
  /** The lowest bit. */
  readonly shift: number;
  /** Bits. */
  readonly width: number;
}

export type BitField = FlagField | NumberBits;

export const flag = (bit: number): FlagField => ({ kind: 'flag', shift: bit, width: 1 });
export const bits = (shift: number, width: number): NumberBits => ({ kind: 'bits', shift, width });

export type BitFields = Readonly<Record<string, BitField>>;
export type BitValues<F extends BitFields> = {
  -readonly [K in keyof F]: F[K] extends FlagField ? boolean : number;
};

const WORD_BITS = 32;

/** Bits of a field, moved to bit 0. */
const lowMask = ({ width }: BitField): number =>
  width === WORD_BITS ? 0xffff_ffff : 2 ** width - 1;

/** A number of up to 32 bits that is made of fields. Made by {@link word}. */
export class Word<F extends BitFields> {
  readonly name: string;
  readonly fields: F;
  /** The bits of each field in place, as a signed 32-bit number: what `&` gives and takes. */
  readonly mask: { readonly [K in keyof F]: number };

  constructor(name: string, fields: F) {
    const mask: Record<string, number> = {};
    let taken = 0;
    for (const [key, field] of Object.entries(fields)) {
      const { shift, width } = field;
      if (shift < 0 || width < 1 || shift + width > WORD_BITS) {
        throw new RangeError(`${name}.${key} is not within ${WORD_BITS} bits`);
      }
      const own = (lowMask(field) << shift) | 0;
      if ((taken & own) !== 0) {
        throw new RangeError(`${name}.${key} overlaps another field`);
      }
      taken |= own;
      mask[key] = own;
    }
    this.name = name;
    this.fields = fields;
    this.mask = mask as { [K in keyof F]: number };
  }

  /** All fields of a number. */
  decode(value: number): BitValues<F> {
    const values: Record<string, number | boolean> = {};
    for (const [key, field] of Object.entries(this.fields)) {
      const part = ((value >>> field.shift) & lowMask(field)) >>> 0;
      values[key] = field.kind === 'flag' ? part === 1 : part;
    }
    return values as BitValues<F>;
  }

  /** The unsigned number with these fields, and zeros elsewhere. Throws RangeError if a value does not fit its field. */
  encode(values: Partial<BitValues<F>>): number {
    return this.replace(0, values);
  }

  /** `value` with these fields replaced, unsigned. Throws as `encode`. */
  replace(value: number, values: Partial<BitValues<F>>): number {
    let word = value;
    for (const [key, given] of Object.entries(values)) {
      const field = this.fields[key];
      const part = Number(given);
      if (!Number.isInteger(part) || part < 0 || part > lowMask(field)) {
        throw new RangeError(`${this.name}.${key}: ${part} does not fit ${field.width} bits`);
      }
      word = (word & ~this.mask[key]) | (part << field.shift);
    }
    return word >>> 0;
  }
}

/** Declares the fields of a number. Throws RangeError if they overlap or do not fit into 32 bits. */
export function word<F extends BitFields>(name: string, fields: F): Word<F> {
  return new Word(name, fields);
}
