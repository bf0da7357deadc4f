/** What the backends of a reactor share. */
import type { CopyBatch } from '../io/copies.ts';
import type { RegisteredFiles } from '../io/files.ts';
import type { Ring } from '../io/ring.ts';
import type { Timers } from '../io/timers.ts';
import type { System } from '../native/system.ts';
import type { Request } from './backend.ts';
import type { Bounces } from './bounces.ts';
import type { EndedSlots } from './requests/ended.ts';
import type { SyncLinks } from './requests/syncs.ts';
import type { Transfers } from './transfers.ts';

/** What a reactor lends to its backends. */
export interface BackendContext {
  /** Its index. */
  readonly reactor: number;
  readonly system: System;
  readonly ring: Ring;
  readonly files: RegisteredFiles;
  readonly copies: CopyBatch;
  readonly request: Request;
  readonly transfers: Transfers;
  readonly timers: Timers;
  readonly syncs: SyncLinks;
  readonly ended: EndedSlots;
  /** None until a command needs it. */
  bounces: Bounces | undefined;
}
