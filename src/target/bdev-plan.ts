/** A bdev that there is → what makes it again. Every identifier is written out, so that what is made of it is the same to its guests. */
import type { Disk } from '../bdev/disk.ts';
import { makingMethod } from '../bdev/kind-rules.ts';
import { bdevKind } from '../bdev/kinds.ts';
import { planBdev } from './model/bdevs.ts';
import type { BdevPlan } from './model/plan.ts';
import { plannedLimits } from './model/rate-limits.ts';

export function planOfBdev(bdev: Disk): BdevPlan {
  const { name, uuid, module, rateLimits } = bdev;
  const kind = bdevKind(module);
  const plan = planBdev(makingMethod(kind), name, { ...kind.save(bdev), uuid });
  return { ...plan, limits: plannedLimits(rateLimits) };
}
