/** All methods of a target. */
import type { Target } from '../../target/target.ts';
import type { LogControl } from '../../util/log.ts';
import type { RpcMethod } from '../dispatcher.ts';
import { Lifecycle } from '../lifecycle.ts';
import { accessMethods } from './access.ts';
import { bdevMethods } from './bdev.ts';
import { configMethods, type Reloader } from './config.ts';
import { dumpMethods } from './dump.ts';
import { faultMethods } from './faults.ts';
import { fileMethods } from './files.ts';
import { frameworkMethods } from './framework.ts';
import { histogramMethods } from './histogram.ts';
import { iostatMethods } from './iostat.ts';
import { listenerMethods } from './listeners.ts';
import { logMethods } from './log.ts';
import { nvmfMethods } from './nvmf.ts';
import { optionMethods } from './options.ts';
import { qosMethods } from './qos.ts';
import { queueMethods } from './queues.ts';
import { spdkMethods } from './spdk.ts';
import { threadMethods } from './threads.ts';
import { transportMethods } from './transport.ts';
import { tuningMethods } from './tuning.ts';
import { watchMethods } from './watch.ts';

/** `version`: of the package. `log`: what is logged. `lifecycle`: the same as the dispatcher's. `reloader`: if there are files. */
export function allMethods(
  target: Target,
  version: string,
  log: LogControl,
  lifecycle = new Lifecycle(),
  reloader?: Reloader,
) {
  // Some describe all of them.
  const table: RpcMethod[] = [];
  const methods = [
    ...bdevMethods(target),
    ...faultMethods(target),
    ...fileMethods(),
    ...iostatMethods(target),
    ...histogramMethods(target),
    ...qosMethods(target),
    ...transportMethods(target),
    ...nvmfMethods(target),
    ...listenerMethods(target),
    ...watchMethods(target),
    ...queueMethods(target),
    ...logMethods(log),
    ...dumpMethods(target),
    ...accessMethods(target),
    ...optionMethods(target),
    ...tuningMethods(),
    ...threadMethods(target),
    ...frameworkMethods(target, lifecycle, () => table, version),
    ...configMethods(target, reloader),
    ...spdkMethods(version),
  ];
  table.push(...methods);
  return methods;
}
