/** What data an I/O command has: known before the controller sees it, where the host's memory is reached by messages. */

import type { SqeValues } from '../../spec/command.ts';
import { CopyDword12, DatasetDword10, DsmRange, NvmOpcode, RangeDword12 } from '../../spec/nvm.ts';
import { Cdw0, Psdt } from '../../spec/nvme.ts';
import {
  RELEASE_BYTES,
  ReservationKeys,
  ReservationOpcode,
  ReservationReport,
} from '../../spec/reservations.ts';
import { COPY_FORMATS } from '../copy-formats.ts';

/** Bytes of a command's data. `blockSize`: of its namespace. */
type Length = (command: SqeValues, blockSize: number) => number;

const ofBlocks: Length = ({ cdw12 }, blockSize) =>
  (RangeDword12.decode(cdw12).nlbZ + 1) * blockSize;

const LENGTHS: ReadonlyMap<number, Length> = new Map<number, Length>([
  [NvmOpcode.READ, ofBlocks],
  [NvmOpcode.WRITE, ofBlocks],
  [NvmOpcode.COMPARE, ofBlocks],
  [
    NvmOpcode.DATASET_MANAGEMENT,
    ({ cdw10 }) => (DatasetDword10.decode(cdw10).nrZ + 1) * DsmRange.size,
  ],
  [ReservationOpcode.REGISTER, () => ReservationKeys.size],
  [ReservationOpcode.ACQUIRE, () => ReservationKeys.size],
  [ReservationOpcode.RELEASE, () => RELEASE_BYTES],
  [ReservationOpcode.REPORT, (command) => 4 * (ReservationReport.parse(command).numdZ + 1)],
  [
    NvmOpcode.COPY,
    ({ cdw12 }) => {
      const { nrZ, descriptorFormat } = CopyDword12.decode(cdw12);
      return (nrZ + 1) * (COPY_FORMATS[descriptorFormat]?.bytes ?? 0);
    },
  ],
]);

/** The data direction that opcodes have in their lowest bits. NVMe Base 2.0 figure 87. */
const TO_CONTROLLER = 1;
const FROM_CONTROLLER = 2;

/** Whether commands of this opcode have data at all. */
export function hasIoData(opcode: number): boolean {
  return (opcode & (TO_CONTROLLER | FROM_CONTROLLER)) !== 0;
}

/** Whether the data of such a command can be brought to the controller. */
export function knowsIoData(opcode: number): boolean {
  return LENGTHS.has(opcode);
}

/**
 * Bytes, and whether the device writes them. Undefined: it has none, or the controller refuses it without a look at its data (it has a
 * PSDT, a namespace or a format that there is not).
 */
export function ioDataOf(
  command: SqeValues,
  blockSize: number | undefined,
): { readonly length: number; readonly toHost: boolean } | undefined {
  const { psdt } = Cdw0.decode(command.cdw0);
  const known = LENGTHS.get(command.opcode);
  if (known === undefined || blockSize === undefined || psdt > Psdt.SGL_AND_METADATA) {
    return undefined;
  }
  const length = known(command, blockSize);
  return length === 0 ? undefined : { length, toHost: (command.opcode & FROM_CONTROLLER) !== 0 };
}
