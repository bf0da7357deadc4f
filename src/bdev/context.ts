/** What the backends of a reactor share. */
import type { CopyBatch } from '../io/copies.ts';
import type { RegisteredFiles } from '../io/files.ts';
import type { Ring } from '../io/ring.ts';
import type { RingTags } from '../io/tags.ts';
import type { Timers } from '../io/timers.ts';
import type { System } from '../native/system.ts';
import type { Request } from './backend.ts';
import type { Bounces } from './bounces.ts';
import type { KeptRequests } from './kept.ts';
import type { NbdShared } from './nbd/backend.ts';
import type { EndedSlots } from './requests/ended.ts';
import type { SyncLinks } from './requests/syncs.ts';
import type { Transfers } from './transfers.ts';
import type { Steps } from './whole.ts';

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
  /** Operations of backends in the ring, beside those of slots. */
  readonly tags: RingTags;
  readonly syncs: SyncLinks;
  /** How a backend ends a slot that the ring did not report: the layer calls `complete` for it soon, with the result that was pushed. */
  readonly ended: EndedSlots;
  /** None until a command needs it. */
  bounces: Bounces | undefined;
  steps: Steps | undefined;
  kept: KeptRequests | undefined;
  nbd: NbdShared | undefined;
}
