/** Asynchronous Event Request and Abort. NVMe Base 2.0 §5.2, §5.1. Owned by main. */
import { MAX_ABORTS } from '../../limits.ts';
import { Abort, AbortResult, AsyncEventRequest } from '../../spec/admin.ts';
import { Status } from '../../spec/nvme.ts';
import { type AdminCommand, adminCommand, done, type Outcome, SUCCESS } from './command.ts';

const NOT_ABORTED = done(Status.SUCCESS, AbortResult.encode({ notAborted: true }));

export const EVENT_COMMANDS: readonly AdminCommand[] = [
  adminCommand(AsyncEventRequest, (_, { events }, { cid }) =>
    events.park(cid) ? 'parked' : done(Status.ASYNC_EVENT_REQUEST_LIMIT),
  ),

  // What has begun completes by itself. What waits, and has not, is taken back.
  adminCommand(Abort, ({ sqid, cid }, context): Outcome | Promise<Outcome> => {
    if (sqid === 0) {
      return context.events.abort(cid) ? SUCCESS : NOT_ABORTED;
    }
    if (context.aborts.count >= MAX_ABORTS) {
      return done(Status.ABORT_LIMIT_EXCEEDED);
    }
    context.aborts.count += 1;
    return context.host
      .abort(sqid, cid)
      .catch(() => false)
      .then((aborted) => {
        context.aborts.count -= 1;
        return aborted ? SUCCESS : NOT_ABORTED;
      });
  }),
];
