/**
 * Binary structures, declared once as data: name, offset, width.
 *
 * A declaration gives field offsets (for the hot path, which indexes typed arrays itself) and a flyweight
 * view over a `DataView` (for everything else). All structures of NVMe, PCI and vfio-user are little endian; protocols of the network have
 * the other order, and say so (`networkStruct`).
 */

export interface Field {
  readonly kind: 'u8' | 'u16' | 'u32' | 'u64' | 'bytes';
  /** Byte offset in the structure. */
  readonly offset: number;
  /** Width in bytes. */
  readonly width: number;
}

export interface NumberField extends Field {
  readonly kind: 'u8' | 'u16' | 'u32' | 'u64';
}

export interface BytesField extends Field {
  readonly kind: 'bytes';
}

export const u8 = (offset: number): NumberField => ({ kind: 'u8', offset, width: 1 });
export const u16 = (offset: number): NumberField => ({ kind: 'u16', offset, width: 2 });
export const u32 = (offset: number): NumberField => ({ kind: 'u32', offset, width: 4 });
/** A 64-bit unsigned integer as a `number`: exact to 2^53; a larger one reads as a number > 2^53, to be refused. */
export const u64 = (offset: number): NumberField => ({ kind: 'u64', offset, width: 8 });
export const bytes = (offset: number, width: number): BytesField => ({
  kind: 'bytes',
  offset,
  width,
});

export type Fields = Readonly<Record<string, NumberField | BytesField>>;

type ValueOf<F extends Field> = F extends NumberField ? number : Uint8Array;
export type StructValues<F extends Fields> = { -readonly [K in keyof F]: ValueOf<F[K]> };

const TWO_32 = 0x1_0000_0000;

/** Reads a little-endian u64 as a number; see {@link u64} for values above 2^53. */
export function readU64(view: DataView, offset: number): number {
  return view.getUint32(offset + 4, true) * TWO_32 + view.getUint32(offset, true);
}

/** Writes a non-negative safe integer as a little-endian u64. */
export function writeU64(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, value % TWO_32, true);
  view.setUint32(offset + 4, Math.floor(value / TWO_32), true);
}

/** The same in the order of the network. */
export function readNetworkU64(view: DataView, offset: number): number {
  return view.getUint32(offset) * TWO_32 + view.getUint32(offset + 4);
}

export function writeNetworkU64(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, Math.floor(value / TWO_32));
  view.setUint32(offset + 4, value % TWO_32);
}

function readField(view: DataView, at: number, field: Field, little: boolean): number | Uint8Array {
  switch (field.kind) {
    case 'u8':
      return view.getUint8(at);
    case 'u16':
      return view.getUint16(at, little);
    case 'u32':
      return view.getUint32(at, little);
    case 'u64':
      return little ? readU64(view, at) : readNetworkU64(view, at);
    case 'bytes':
      return new Uint8Array(view.buffer, view.byteOffset + at, field.width);
  }
}

function writeField(
  view: DataView,
  at: number,
  field: Field,
  value: number | Uint8Array,
  little: boolean,
): void {
  if (typeof value !== 'number') {
    if (field.kind !== 'bytes' || value.length > field.width) {
      throw new RangeError('bytes do not fit the field');
    }
    const target = new Uint8Array(view.buffer, view.byteOffset + at, field.width);
    target.fill(0, value.length);
    target.set(value);
    return;
  }
  switch (field.kind) {
    case 'u8':
      view.setUint8(at, value);
      break;
    case 'u16':
      view.setUint16(at, value, little);
      break;
    case 'u32':
      view.setUint32(at, value, little);
      break;
    case 'u64':
      (little ? writeU64 : writeNetworkU64)(view, at, value);
      break;
    case 'bytes':
      throw new TypeError('a bytes field takes a Uint8Array');
  }
}

/** One structure of a specification. Made by {@link struct}. */
export class Struct<F extends Fields> {
  readonly name: string;
  /** Size in bytes. */
  readonly size: number;
  readonly fields: F;
  /** Byte offset of each field. */
  readonly offset: { readonly [K in keyof F]: number };
  /** The order of the bytes of a number: the least first. */
  readonly littleEndian: boolean;

  constructor(name: string, size: number, fields: F, littleEndian = true) {
    const offset = {} as { [K in keyof F]: number };
    for (const [key, field] of Object.entries(fields)) {
      if (field.offset + field.width > size) {
        throw new RangeError(`${name}.${key} ends past the structure's ${size} bytes`);
      }
      offset[key as keyof F] = field.offset;
    }
    this.name = name;
    this.size = size;
    this.fields = fields;
    this.offset = offset;
    this.littleEndian = littleEndian;
  }

  /** Index of a field in an `Int32Array`/`Uint32Array` over the structure. The field must be 4-byte aligned. */
  word(field: keyof F): number {
    const at = this.offset[field];
    if (at % 4 !== 0) {
      throw new RangeError(`${this.name}.${String(field)} is not 4-byte aligned`);
    }
    return at / 4;
  }

  /** Copies all fields out of memory: each value is read exactly once. `bytes` fields stay views. */
  read(view: DataView, base = 0): StructValues<F> {
    const values = {} as Record<string, number | Uint8Array>;
    for (const [key, field] of Object.entries(this.fields)) {
      values[key] = readField(view, base + field.offset, field, this.littleEndian);
    }
    return values as StructValues<F>;
  }

  /** Writes the given fields and leaves the others as they are. */
  write(view: DataView, base: number, values: Partial<StructValues<F>>): void {
    for (const [key, value] of Object.entries(values)) {
      const field = this.fields[key];
      writeField(view, base + field.offset, field, value as number | Uint8Array, this.littleEndian);
    }
  }

  /** A new zeroed structure with the given fields set, as bytes. */
  encode(values: Partial<StructValues<F>>): Uint8Array {
    const out = new Uint8Array(this.size);
    this.write(new DataView(out.buffer), 0, values);
    return out;
  }
}

/** Declares a structure. Throws if a field does not fit into `size` bytes. */
export function struct<F extends Fields>(name: string, size: number, fields: F): Struct<F> {
  return new Struct(name, size, fields);
}

/** The same for a structure whose numbers have the greatest byte first. */
export function networkStruct<F extends Fields>(name: string, size: number, fields: F): Struct<F> {
  return new Struct(name, size, fields, false);
}
