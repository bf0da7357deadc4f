/** Sanitize, and which commands are carried out meanwhile. NVMe Base 2.0 §5.24, §8.21. Owned by main; the operation itself is `../sanitize.ts`. */
import { AdminOpcode, Sanitize, SanitizeAction } from '../../spec/admin.ts';
import { Sanicap } from '../../spec/identify.ts';
import { SelfTestEnd } from '../../spec/logs.ts';
import { Status } from '../../spec/nvme.ts';
import { type AdminCommand, adminCommand, done, refuse, SUCCESS } from './command.ts';

/** Passes of an overwrite whose number is given as 0. */
const MOST_PASSES = 16;
/** SANICAP: nothing is done to media after an operation that deallocates nothing. */
const UNMODIFIED = 1;

/** Commands that are carried out whatever a sanitize operation does, or how it ended. Figure 624. */
const ALWAYS = new Set<number>([
  AdminOpcode.DELETE_IO_SQ,
  AdminOpcode.CREATE_IO_SQ,
  AdminOpcode.GET_LOG_PAGE,
  AdminOpcode.DELETE_IO_CQ,
  AdminOpcode.CREATE_IO_CQ,
  AdminOpcode.IDENTIFY,
  AdminOpcode.ABORT,
  AdminOpcode.SET_FEATURES,
  AdminOpcode.GET_FEATURES,
  AdminOpcode.ASYNC_EVENT_REQUEST,
  AdminOpcode.KEEP_ALIVE,
  AdminOpcode.DOORBELL_BUFFER_CONFIG,
  AdminOpcode.SANITIZE,
]);

export const waitsForSanitize = (opcode: number): boolean => !ALWAYS.has(opcode);

export const SANITIZE_COMMANDS: readonly AdminCommand[] = [
  adminCommand(
    Sanitize,
    ({ sanact, ause, owpass, oipbp, ndas, ovrpat }, { host, selfTests }, { cdw10 }) => {
      const { sanitize, namespaces } = host;
      if (sanitize.isRunning) {
        return done(Status.SANITIZE_IN_PROGRESS);
      }
      if (sanact === SanitizeAction.EXIT_FAILURE) {
        if (sanitize.hasFailed && !sanitize.canExit) {
          return done(Status.SANITIZE_FAILED);
        }
        return sanitize.exit(host).then(() => SUCCESS);
      }
      if (sanact !== SanitizeAction.BLOCK_ERASE && sanact !== SanitizeAction.OVERWRITE) {
        return refuse(Sanitize, 'sanact');
      }
      // After a failure in restricted mode only another operation in that mode is taken.
      if (sanitize.hasFailed && !sanitize.canExit && ause) {
        return done(Status.SANITIZE_FAILED);
      }
      const all = [...namespaces.values()];
      if (all.some(({ conflicts }) => conflicts)) {
        return done(Status.RESERVATION_CONFLICT);
      }
      if (all.some(({ readonly }) => readonly)) {
        return done(Status.NAMESPACE_WRITE_PROTECTED);
      }
      if (!sanitize.hasFailed && all.some(({ occupied }) => occupied)) {
        return done(Status.FORMAT_IN_PROGRESS);
      }
      selfTests.stop(SelfTestEnd.SANITIZE);
      const request = {
        action: sanact,
        dw10: cdw10 >>> 0,
        unrestricted: ause,
        noDeallocate: ndas,
        passes: owpass === 0 ? MOST_PASSES : owpass,
        invert: oipbp,
        pattern: ovrpat,
      };
      return sanitize.start(host, request).then(() => SUCCESS);
    },
    {
      effects: { lbcc: true, cse: 2 },
      identify: {
        sanicap: Sanicap.encode({ blockErase: true, overwrite: true, nodmmas: UNMODIFIED }),
      },
    },
  ),
];
