/** Get Log Page. NVMe Base 2.0 §5.16. Owned by main. */
import { PAGE_SIZE } from '../../limits.ts';
import { GetLogPage } from '../../spec/admin.ts';
import { Status } from '../../spec/nvme.ts';
import { findLogPage, type LogPage } from '../logs/table.ts';
import {
  type AdminCommand,
  type AdminContext,
  adminCommand,
  type Command,
  done,
  type Result,
  refuse,
} from './command.ts';

/** The part of a page that the host wants, in bytes. `retain`: events that the page is about stay silent. */
interface Wanted {
  readonly offset: number;
  readonly bytes: number;
  readonly retain: boolean;
}

function sendPage(page: LogPage, wanted: Wanted, context: AdminContext, command: Command): Result {
  const { offset, bytes, retain } = wanted;
  const whole = page.page(context);
  if (offset > whole.length) {
    return refuse(GetLogPage, 'lpo');
  }
  const data = new Uint8Array(bytes);
  data.set(whole.subarray(offset, offset + bytes));
  const status = context.data.send(command, data);
  if (status === Status.SUCCESS && !retain) {
    context.events.read(page.lid);
    page.read?.(context);
  }
  return done(status);
}

export const LOG_COMMANDS: readonly AdminCommand[] = [
  adminCommand(GetLogPage, (parameters, context, command) => {
    const { lid, lsp, rae, numdLZ, numdU, lpo, ot, uuid } = parameters;
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
    if (lpo % 4 !== 0) {
      return refuse(GetLogPage, 'lpo');
    }
    const wanted = { offset: lpo, bytes, retain: rae };
    const prepared = page.prepare?.(context, { lsp });
    if (prepared === undefined) {
      return sendPage(page, wanted, context, command);
    }
    const { epoch } = context;
    return prepared.then(() =>
      context.epoch === epoch
        ? sendPage(page, wanted, context, command)
        : done(Status.ABORTED_BY_REQUEST),
    );
  }),
];
