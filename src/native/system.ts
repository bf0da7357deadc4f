/** What a reactor, and all that runs in it, asks of the system. Handed in, so that it also runs where memory, devices and time are made up. */
import type { NativeAddon } from './types.ts';

export type System = Pick<
  NativeAddon,
  | 'mapAnonymous'
  | 'mapAlias'
  | 'addressOf'
  | 'revoke'
  | 'bindCopyBatch'
  | 'bindCompareBatch'
  | 'bindZeroMemory'
  | 'bindClock'
  | 'bindThreadClock'
  | 'eventfdSignal'
  | 'uringSetup'
  | 'uringEnter'
  | 'uringRegisterFiles'
  | 'uringUpdateFile'
  | 'uringRegisterWorkerCpus'
  | 'uringRegisterMaxWorkers'
>;
