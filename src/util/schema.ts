/** Pieces that the parameters of several methods are made of. */
import { Type } from 'typebox';
import { UUID_PATTERN } from './uuid.ts';

export const Uint = (description: string, maximum = Number.MAX_SAFE_INTEGER, minimum = 0) =>
  Type.Integer({
    minimum,
    maximum,
    expected: `an integer from ${minimum} to ${maximum}`,
    description,
  });

export const U8_MAX = 0xff;
export const U16_MAX = 0xffff;
export const U32_MAX = 0xffff_ffff;

export const Bool = (description: string) => Type.Boolean({ description });

export const Text = (description: string) => Type.String({ description });

export const Path = (description: string) =>
  Type.String({
    pattern: '^[^\\u0000]+$',
    maxLength: 4095,
    expected: 'the path of a file',
    description,
  });

/** Printable ASCII, as identify data holds it. */
export const Ascii = (description: string, maxLength: number) =>
  Type.String({
    pattern: `^[ -~]{0,${maxLength}}$`,
    expected: `at most ${maxLength} printable ASCII characters`,
    description,
  });

export const Hex = (description: string, digits: number) =>
  Type.String({
    pattern: `^[0-9a-fA-F]{${digits}}$`,
    expected: `${digits} hexadecimal digits`,
    description,
  });

export const Uuid = (description: string) =>
  Type.String({ pattern: UUID_PATTERN, expected: 'a UUID', description });

/** A value that SPDK knows and we do not act on; any value of its type is accepted. */
export const IGNORED = 'accepted, and has no effect';

/** Something we do not do: only its "off" is accepted. */
export const Unsupported = <const T extends boolean | number>(off: T) =>
  Type.Literal(off, { description: 'not supported' });

/** The result of a method that only does something. */
export const DONE = Type.Unsafe<boolean>(Type.Literal(true));

/** Numbers of results, which need no bounds. */
export const Count = (description: string) => Type.Integer({ description });

/** Ticks that results count in: nanoseconds. */
export const TICK_RATE = 1_000_000_000;

export const TARGET_NAME = {
  tgt_name: Type.Optional(Type.String({ description: `there is one target; ${IGNORED}` })),
};

/** What declares parameters where no package may be loaded: lent to whoever declares them. */
export const SCHEMA_KIT = { Type, Uint, Bool, Text, Path, Uuid, Unsupported, IGNORED, U32_MAX };
export type SchemaKit = typeof SCHEMA_KIT;
