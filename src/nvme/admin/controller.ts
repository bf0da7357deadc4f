/** Commands about the controller as a whole: Keep Alive, shadow doorbells. NVMe Base 2.0 §5.18, §5.8. Owned by main. */
import { MAX_IOVA, PAGE_SIZE } from '../../limits.ts';
import { DoorbellBufferConfig, KeepAlive } from '../../spec/admin.ts';
import { Status } from '../../spec/nvme.ts';
import type { ShadowPages } from '../shadow.ts';
import { type AdminCommand, adminCommand, done, SUCCESS } from './command.ts';

export const CONTROLLER_COMMANDS: readonly AdminCommand[] = [
  adminCommand(KeepAlive, (_, { keepAlive }) => {
    keepAlive();
    return SUCCESS;
  }),

  adminCommand(
    DoorbellBufferConfig,
    (_, { host, setShadow }, { prp1, prp2 }) => {
      if (prp1 % PAGE_SIZE !== 0 || prp2 % PAGE_SIZE !== 0 || prp1 === prp2) {
        return done(Status.INVALID_FIELD);
      }
      const pages: ShadowPages = { doorbells: prp1, eventIdx: prp2 };
      if (Math.max(prp1, prp2) > MAX_IOVA || !setShadow(pages)) {
        return done(Status.DATA_TRANSFER_ERROR);
      }
      return host.setShadow(pages).then(() => SUCCESS);
    },
    {
      oacs: 'doorbellBufferConfig',
      offered: ({ shadowDoorbells }) => shadowDoorbells,
      // To look at shadow doorbells there, a message each would be needed.
      needsSharedMemory: true,
    },
  ),
];
