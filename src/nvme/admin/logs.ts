/** Get Log Page. NVMe Base 2.0 §5.16. Owned by main. */
import { PAGE_SIZE } from '../../limits.ts';
import { GetLogPage } from '../../spec/admin.ts';
import { Status } from '../../spec/nvme.ts';
import { findLogPage } from '../logs/table.ts';
import { type AdminCommand, adminCommand, done, refuse } from './command.ts';

export const LOG_COMMANDS: readonly AdminCommand[] = [
  adminCommand(GetLogPage, (parameters, context, command) => {
    const { lid, rae, numdLZ, numdU, lpo, ot, uuid } = parameters;
    const bytes = 4 * (numdLZ + 0x1_0000 * numdU + 1);
    const page = findLogPage(lid);
    if (page === undefined) {
      return refuse(GetLogPage, 'lid', Status.INVALID_LOG_PAGE);
    }
    if (bytes > PAGE_SIZE << context.config.mdts) {
      return refuse(GetLogPage, 'numdLZ');
    }
    // No page takes an index in place of an offset, and there are no UUIDs.
    if (ot) {
      return refuse(GetLogPage, 'ot');
    }
    if (uuid !== 0) {
      return refuse(GetLogPage, 'uuid');
    }
    const whole = page.page(context);
    if (lpo % 4 !== 0 || lpo > whole.length) {
      return refuse(GetLogPage, 'lpo');
    }
    const data = new Uint8Array(bytes);
    data.set(whole.subarray(lpo, lpo + bytes));
    const status = context.data.send(command, data);
    if (status === Status.SUCCESS && !rae) {
      context.events.read(lid);
      page.read?.(context);
    }
    return done(status);
  }),
];
