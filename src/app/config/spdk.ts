/** SPDK's JSON configuration format → method calls. */

import { isConfigCall } from '../../target/model/apply.ts';
import { similar } from '../../util/similar.ts';
import type { PlacedCall } from './fold.ts';
import type { Path, Problem } from './problem.ts';
import type { Source } from './source.ts';

/** What is known of the target's methods. */
export interface MethodTable {
  readonly names: readonly string[];
  /** What is wrong with the parameters of a method that exists, or undefined. */
  violation(name: string, params: unknown): string | undefined;
}

/** Settings of parts of SPDK that are not here, or that need no setting here. */
const TUNING = [
  /^(iobuf|sock|sock_impl|accel|dsa|iaa|ioat|idxd|vmd|scheduler|dpdk_cryptodev|mlx5|compressdev|env_dpdk|trace|notify|keyring|fsdev|vfu_tgt)_/,
  /^(bdev|bdev_\w+|nvmf|iscsi|nbd|vhost\w*|blobfs|framework)_set_(options|hotplug|config|crdt|scheduler|max_subsystems)$/,
  /^framework_(set_scheduler|set_dynamic_scheduler|enable_cpumask_locks|disable_cpumask_locks|set_governor)$/,
  /^(thread_set_|virtio_blk_create_transport$|fsdev_set_opts$)/,
  /^bdev_(wait_for_examine|examine|enable_histogram|rpc_\w+)$/,
];

/** Parts of SPDK whose settings say nothing of NVMe controllers for VMs: all that is in them is for others. */
const isTuning = (method: string): boolean => TUNING.some((pattern) => pattern.test(method));

/** Methods of ours that a configuration may call and that leave nothing behind that could be compared: called at each start. */
const isSetting = (method: string): boolean => /^log_(set|clear|enable)_/.test(method);

export interface SpdkConfig {
  readonly calls: readonly PlacedCall[];
  readonly settings: readonly PlacedCall[];
  /** Calls that have no effect here. */
  readonly ignored: readonly PlacedCall[];
}

export function isSpdkForm(value: unknown): value is { readonly subsystems: unknown } {
  return typeof value === 'object' && value !== null && 'subsystems' in value;
}

/** Adds what is wrong to `problems`. */
export function readSpdk(source: Source, methods: MethodTable, problems: Problem[]): SpdkConfig {
  const calls: PlacedCall[] = [];
  const settings: PlacedCall[] = [];
  const ignored: PlacedCall[] = [];
  const problem = (path: Path, message: string) => {
    problems.push({ place: source.place(path), message });
  };

  const visit = (entry: unknown, path: Path): void => {
    const { method, params = {} } = (entry ?? {}) as { method?: unknown; params?: unknown };
    if (typeof method !== 'string') {
      problem(path, "must have a 'method'");
      return;
    }
    const call = { method, params: params as PlacedCall['params'], place: source.place(path) };
    const broken = () => {
      if (typeof params === 'object' && params !== null) {
        calls.push({ ...call, isBroken: true } as PlacedCall);
      }
    };
    const known = methods.names.includes(method);
    const foldable = known && isConfigCall(method);
    if (!foldable && isTuning(method)) {
      ignored.push(call as PlacedCall);
    } else if (!known) {
      const meant = similar(method, methods.names);
      const hint = meant === undefined ? '' : `, did you mean '${meant}'?`;
      problem([...path, 'method'], `there is no method '${method}'${hint}`);
      broken();
    } else if (foldable || isSetting(method)) {
      const violation = methods.violation(method, params);
      if (violation !== undefined) {
        problem([...path, 'params'], `${method}: ${violation}`);
        broken();
      } else {
        (foldable ? calls : settings).push(call as PlacedCall);
      }
    } else {
      problem([...path, 'method'], `'${method}' configures nothing`);
    }
  };

  /** A list in the list is a batch of calls. */
  const visitAll = (entries: readonly unknown[], path: Path): void => {
    for (const [i, entry] of entries.entries()) {
      if (Array.isArray(entry)) {
        visitAll(entry, [...path, i]);
      } else {
        visit(entry, [...path, i]);
      }
    }
  };

  const { subsystems } = (source.value ?? {}) as { subsystems?: unknown };
  if (!Array.isArray(subsystems)) {
    problem(['subsystems'], 'must be a list');
    return { calls, settings, ignored };
  }
  for (const [i, section] of subsystems.entries()) {
    const config: unknown = section?.config ?? [];
    if (typeof section?.subsystem !== 'string') {
      problem(['subsystems', i], "must have the name of a 'subsystem'");
    }
    if (!Array.isArray(config)) {
      problem(['subsystems', i, 'config'], 'must be a list, or null');
    } else {
      visitAll(config, ['subsystems', i, 'config']);
    }
  }
  // SPDK calls it before all others, wherever it stands.
  const first = (call: PlacedCall) => call.method === 'nvmf_set_max_subsystems';
  return {
    calls: [...calls.filter(first), ...calls.filter((call) => !first(call))],
    settings,
    ignored,
  };
}
