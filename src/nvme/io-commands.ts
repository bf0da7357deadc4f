/**
 * The I/O commands that are carried out (`plane/engine.ts`), and what the controller says of them: Identify and the log of effects are made
 * of this list.
 */
import { changesBlocks, Op } from '../bdev/op.ts';
import type { Oncs } from '../spec/identify.ts';
import {
  Compare,
  Copy,
  DatasetManagement,
  Flush,
  Read,
  Verify,
  Write,
  WriteUncorrectable,
  WriteZeroes,
} from '../spec/nvm.ts';
import type { EffectsValues } from './admin/command.ts';

export interface IoCommand {
  readonly name: string;
  readonly opcode: number;
  /** What the request layer is asked for. */
  readonly op: Op;
  /** In the log of effects, beside CSUPP. */
  readonly effects: EffectsValues;
  /** The bit of ONCS that says that the command is supported. */
  readonly oncs?: keyof (typeof Oncs)['fields'];
}

export const IO_COMMANDS: readonly IoCommand[] = [
  describe(Flush, Op.FLUSH),
  describe(Write, Op.WRITE),
  describe(Read, Op.READ),
  describe(WriteUncorrectable, Op.WRITE_UNCORRECTABLE, 'writeUncorrectable'),
  describe(Compare, Op.COMPARE, 'compare'),
  describe(WriteZeroes, Op.WRITE_ZEROES, 'writeZeroes'),
  describe(DatasetManagement, Op.DISCARD, 'datasetManagement'),
  describe(Verify, Op.VERIFY, 'verify'),
  describe(Copy, Op.COPY, 'copy'),
];

function describe(
  { name, opcode }: { readonly name: string; readonly opcode: number },
  op: Op,
  oncs?: IoCommand['oncs'],
): IoCommand {
  const effects = changesBlocks(op) ? { lbcc: true } : {};
  return { name, opcode, op, effects, ...(oncs !== undefined && { oncs }) };
}

/** In place of an operation: no such command. */
export const NO_OP = 0xff;

/** Operation by opcode, or NO_OP. */
export const OP_OF_OPCODE = new Uint8Array(256).fill(NO_OP);
for (const { opcode, op } of IO_COMMANDS) {
  OP_OF_OPCODE[opcode] = op;
}
