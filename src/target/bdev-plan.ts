/** A bdev that there is → what makes it again. Every identifier is written out, so that what is made of it is the same to its guests. */
import type { Disk } from '../bdev/disk.ts';
import { FileBdev } from '../bdev/file.ts';
import { DelayBdev, describeDelay, ErrorBdev } from '../bdev/wrapper.ts';
import { planBdev } from './model/bdevs.ts';
import type { BdevPlan, Params } from './model/plan.ts';
import { plannedLimits } from './model/rate-limits.ts';

export function planOfBdev(bdev: Disk): BdevPlan {
  const { name, uuid, module, rateLimits } = bdev;
  const plan = planBdev(`bdev_${module}_create`, name, { ...paramsOf(bdev), uuid });
  return { ...plan, limits: plannedLimits(rateLimits) };
}

function paramsOf(bdev: Disk): Params {
  const { blockSize: block_size, numBlocks: num_blocks } = bdev;
  if (bdev instanceof DelayBdev) {
    return describeDelay(bdev);
  }
  if (bdev instanceof ErrorBdev) {
    return { base_name: bdev.base.name };
  }
  if (!(bdev instanceof FileBdev)) {
    return { num_blocks, block_size };
  }
  const { filename, readonly, direct, nowait } = bdev;
  return { filename, block_size, readonly, direct, nowait };
}
