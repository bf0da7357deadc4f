/** Where a host's memory is reached by messages, the data of every I/O command that there is can be brought to the controller. */
import t from 'tap';
import { IO_COMMANDS } from '../../src/nvme/io-commands.ts';
import { hasIoData, knowsIoData } from '../../src/nvme/remote/io-data.ts';

for (const { name, opcode } of IO_COMMANDS) {
  t.equal(knowsIoData(opcode), hasIoData(opcode), name);
}
