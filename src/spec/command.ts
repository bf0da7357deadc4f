/** How commands are declared: an opcode, and the fields of its command dwords, as the specification's figures have them. */
import { type BitFields, type BitValues, type Word, word } from '../util/bits.ts';
import type { StructValues } from '../util/struct.ts';
import { Sqe } from './nvme.ts';

/** All fields of a submission queue entry. */
export type SqeValues = StructValues<(typeof Sqe)['fields']>;
/** Those that a host gives; the others are zeros. */
export type CommandFields = Partial<SqeValues>;

const TWO_32 = 0x1_0000_0000;

/** The only field of two command dwords: a number of 64 bits, exact up to 2^53, above that larger than it. */
export interface Qword {
  readonly kind: 'qword';
}
export const qword: Qword = { kind: 'qword' };

type DwordNumber = 2 | 3 | 10 | 11 | 12 | 13 | 14 | 15;
type DwordName = `cdw${DwordNumber}`;
/** Of one dword, or of this one and the next. */
type DwordFields = BitFields | Readonly<Record<string, Qword>>;
/** Fields by command dword. */
type Dwords = Readonly<Partial<Record<DwordNumber, DwordFields>>>;

type ValuesOf<F> = F extends BitFields ? BitValues<F> : { -readonly [K in keyof F]: number };
type Intersection<U> = (U extends unknown ? (u: U) => void : never) extends (i: infer I) => void
  ? I
  : never;
type Flat<T> = { [K in keyof T]: T[K] };
/** The parameters of a command, by the names of its fields. */
export type Parameters<D extends Dwords> = Flat<
  Intersection<{ [K in keyof D]: ValuesOf<D[K]> }[keyof D]>
>;
/** What `parse` of a command gives. */
export type Parsed<C> = C extends CommandLayout<infer D> ? Parameters<D> : never;

/** A place in a submission queue entry. */
export interface ParameterPlace {
  readonly byte: number;
  /** In that byte. */
  readonly bit: number;
}

/** What commands have beside their own parameters. */
const COMMON = ['nsid', 'mptr', 'prp1', 'prp2', 'flags'] as const;
type Common = Partial<Pick<SqeValues, (typeof COMMON)[number]>>;

function isQword(fields: DwordFields): fields is Readonly<Record<string, Qword>> {
  return Object.values(fields).some(({ kind }) => kind === 'qword');
}

/** A command's layout. Made by {@link command}. */
export class CommandLayout<D extends Dwords> {
  readonly name: string;
  readonly opcode: number;
  readonly #words = new Map<DwordName, Word<BitFields>>();
  /** Name of the field → its lower and its upper dword. */
  readonly #qwords = new Map<string, readonly [DwordName, DwordName]>();

  constructor(name: string, opcode: number, dwords: D) {
    this.name = name;
    this.opcode = opcode;
    const names = new Set<string>();
    for (const [number, fields] of Object.entries<DwordFields>(dwords)) {
      for (const key of Object.keys(fields)) {
        if (names.has(key)) {
          throw new RangeError(`${name} has two fields ${key}`);
        }
        names.add(key);
      }
      const dword: DwordName = `cdw${Number(number) as DwordNumber}`;
      if (isQword(fields)) {
        const upper: DwordName = `cdw${(Number(number) + 1) as DwordNumber}`;
        this.#qwords.set(Object.keys(fields)[0], [dword, upper]);
      } else {
        this.#words.set(dword, word(`${name}.${dword}`, fields));
      }
    }
  }

  /** The parameters in an entry. */
  parse(sqe: Readonly<Record<DwordName, number>>): Parameters<D> {
    const values: Record<string, number | boolean> = {};
    for (const [dword, each] of this.#words) {
      Object.assign(values, each.decode(sqe[dword]));
    }
    for (const [name, [lower, upper]] of this.#qwords) {
      values[name] = (sqe[lower] >>> 0) + (sqe[upper] >>> 0) * TWO_32;
    }
    return values as Parameters<D>;
  }

  /** Where a field is in an entry, as error log entries say it. NVMe Base 2.0 figure 206. */
  location(field: keyof Parameters<D>): ParameterPlace {
    for (const [dword, { fields }] of this.#words) {
      if (Object.hasOwn(fields, field)) {
        const bit = fields[String(field)].shift;
        return { byte: Sqe.offset[dword] + Math.floor(bit / 8), bit: bit % 8 };
      }
    }
    const [dword] = this.#qwords.get(String(field)) ?? ['cdw10'];
    return { byte: Sqe.offset[dword], bit: 0 };
  }

  /** An entry with these parameters, and zeros elsewhere. Throws RangeError if one does not fit its field. */
  fields(values: Partial<Parameters<D>> & Common = {}): CommandFields {
    const given = values as Readonly<Record<string, number | boolean | undefined>>;
    const out: Record<string, number> = { opcode: this.opcode };
    for (const name of COMMON) {
      if (given[name] !== undefined) {
        out[name] = Number(given[name]);
      }
    }
    for (const [dword, each] of this.#words) {
      const own = Object.keys(each.fields).filter((key) => given[key] !== undefined);
      if (own.length > 0) {
        out[dword] = each.encode(Object.fromEntries(own.map((key) => [key, Number(given[key])])));
      }
    }
    for (const [name, [lower, upper]] of this.#qwords) {
      const value = Number(given[name] ?? 0);
      if (!Number.isInteger(value) || value < 0 || value >= TWO_32 ** 2) {
        throw new RangeError(`${this.name}.${name}: ${value} does not fit 64 bits`);
      }
      out[lower] = value % TWO_32;
      out[upper] = Math.floor(value / TWO_32);
    }
    return out;
  }
}

/** Declares a command. Throws RangeError if fields overlap, or two have one name. */
export function command<const D extends Dwords>(
  name: string,
  opcode: number,
  dwords: D,
): CommandLayout<D> {
  return new CommandLayout(name, opcode, dwords);
}
