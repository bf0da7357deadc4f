/** What has changed since the files were last taken over, besides what plans say. */
import { FileBdev } from '../../bdev/file.ts';
import { type Plan, same } from '../../target/model/plan.ts';
import type { Target } from '../../target/target.ts';
import { describeError } from '../../util/errors.ts';
import type { Logger } from '../../util/log.ts';
import { askPath } from './host-files.ts';
import type { LoadedConfig } from './load.ts';
import type { Settings } from './settings.ts';

/** Bdevs of the files whose file has become longer than they are, as far as that can be told. */
export async function grownFiles(target: Target, plan: Plan, log: Logger): Promise<Set<string>> {
  const grown = [...plan.bdevs.keys()].map(async (name) => {
    const bdev = target.bdevs.find(name);
    if (!(bdev instanceof FileBdev)) {
      return [];
    }
    try {
      const blocks = await askPath(bdev.filename, () => bdev.currentBlocks());
      return blocks > bdev.numBlocks ? [name] : [];
    } catch (error) {
      log.warn({ bdev: name, reason: describeError(error) }, 'its size was not looked at');
      return [];
    }
  });
  return new Set((await Promise.all(grown)).flat());
}

/** Keys of settings that take effect at the next start, and differ. */
export function changedSettings(
  before: LoadedConfig,
  after: LoadedConfig,
  plan: Plan,
  current: Plan,
): string[] {
  const keys = new Set([...Object.keys(before.settings), ...Object.keys(after.settings)]);
  const changed = [...keys].filter(
    (key) => !same(before.settings[key as keyof Settings], after.settings[key as keyof Settings]),
  );
  if (current.transport !== undefined && !same(plan.transport, current.transport)) {
    changed.push('transport');
  }
  return changed;
}
