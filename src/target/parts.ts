/** What the parts of a target that change it have in common. */
import type { Logger } from '../util/log.ts';
import type { Bdevs } from './bdevs.ts';
import type { Changes } from './changes.ts';
import type { TargetEvents } from './events.ts';
import type { KeptReservations } from './kept-reservations.ts';
import type { KeptSanitize } from './kept-sanitize.ts';
import type { Model } from './model/model.ts';
import type { Subsystem } from './subsystem.ts';

export interface Parts {
  readonly model: Model;
  readonly bdevs: Bdevs;
  /** By their NQNs, in the order of creation. */
  readonly subsystems: Map<string, Subsystem>;
  readonly changes: Changes;
  readonly events: TargetEvents;
  readonly keptReservations: KeptReservations;
  readonly keptSanitize: KeptSanitize;
  readonly log: Logger;
}
