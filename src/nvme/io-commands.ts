/**
 * The I/O commands that are carried out (`plane/engine.ts`), and what the controller says of them: Identify and the log of effects are made
 * of this list.
 */
import type { Oncs } from '../spec/identify.ts';
import { Flush, Read, Write } from '../spec/nvm.ts';
import type { EffectsValues } from './admin/command.ts';

export interface IoCommand {
  readonly name: string;
  readonly opcode: number;
  /** In the log of effects, beside CSUPP. */
  readonly effects: EffectsValues;
  /** The bit of ONCS that says that the command is supported. */
  readonly oncs?: keyof (typeof Oncs)['fields'];
}

export const IO_COMMANDS: readonly IoCommand[] = [
  { name: Flush.name, opcode: Flush.opcode, effects: {} },
  { name: Write.name, opcode: Write.opcode, effects: { lbcc: true } },
  { name: Read.name, opcode: Read.opcode, effects: {} },
];
