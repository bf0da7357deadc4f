/**
 * What a kind of bdev is to main: one declaration, from which its methods and its place in configurations are made. How reactors open it is in
 * `open.ts`, by the kind of its descriptor.
 */
import type { TObject } from 'typebox';
import type { SchemaKit } from '../util/schema.ts';
import type { BdevIdentity, Disk } from './disk.ts';
import type { FileContext } from './file.ts';
import type { BdevKindRules } from './kind-rules.ts';

/** Parameters of the method that makes it, checked against its schema. */
export type BdevParams = Readonly<Record<string, unknown>>;

/** Something that an operator should know of a bdev, as it happens: an event of the target. Or that its disk has become larger. */
export type BdevNotice =
  | {
      readonly type: 'bdev-connected' | 'bdev-disconnected' | 'write-back-failed' | 'error';
      readonly bdev: string;
      readonly message?: string;
    }
  | { readonly type: 'grown'; readonly bdev: string; readonly numBlocks: number };
export type NoticeSink = (notice: BdevNotice) => void;

/** What a bdev may need to be made. */
export interface BdevHost {
  readonly notice: NoticeSink;
  readonly files: FileContext;
  /** The bdev below, of kinds that have one. */
  readonly base: Disk | undefined;
}

export interface BdevKind extends BdevKindRules {
  /** What the method does that makes it, in a sentence; and what is special about the one that deletes it. */
  readonly summary: string;
  readonly deletion?: string;
  /** Of the method that makes it, which answers with the name, or just true. */
  readonly parameters: (kit: SchemaKit) => TObject;
  readonly answersTrue?: boolean;
  readonly example?: { readonly params: BdevParams; readonly result: unknown };
  /** Throws or rejects with InvalidError, or what the system says; it may last as long as a file system likes. */
  readonly create: (
    identity: BdevIdentity,
    params: BdevParams,
    host: BdevHost,
  ) => Disk | Promise<Disk>;
  /** What makes it again, but for name and UUID. */
  readonly save: (bdev: Disk) => BdevParams;
}
