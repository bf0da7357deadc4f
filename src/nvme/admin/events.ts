/** Asynchronous Event Request and Abort. NVMe Base 2.0 §5.2, §5.1. Owned by main. */
import { Abort, AbortResult, AsyncEventRequest } from '../../spec/admin.ts';
import { Status } from '../../spec/nvme.ts';
import { type AdminCommand, adminCommand, done, SUCCESS } from './command.ts';

const NOT_ABORTED = done(Status.SUCCESS, AbortResult.encode({ notAborted: true }));

export const EVENT_COMMANDS: readonly AdminCommand[] = [
  adminCommand(AsyncEventRequest, (_, { events }, { cid }) =>
    events.park(cid) ? 'parked' : done(Status.ASYNC_EVENT_REQUEST_LIMIT),
  ),

  // Only event requests can be taken back; anything else completes by itself.
  adminCommand(Abort, ({ sqid, cid }, { events }) =>
    sqid === 0 && events.abort(cid) ? SUCCESS : NOT_ABORTED,
  ),
];
