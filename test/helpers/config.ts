/** What SPDK's rpc.py does for save_config and load_config, and random changes of a target's configuration. */
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { RpcError } from '../../src/rpc/protocol.ts';
import type { ConfigDocument } from '../../src/target/model/plan.ts';

export type Call = (method: string, params?: unknown) => Promise<unknown>;

/** `rpc.py save_config`. */
export async function saveAsClient(call: Call): Promise<ConfigDocument> {
  const parts = (await call('framework_get_subsystems')) as { subsystem: string }[];
  const subsystems = [];
  for (const { subsystem } of parts) {
    const config = await call('framework_get_config', { name: subsystem, with_batches: false });
    subsystems.push({ subsystem, config } as ConfigDocument['subsystems'][0]);
  }
  return { subsystems };
}

/** `rpc.py load_config`: what can be called now, then (after initialisation) the rest. Gives the methods that could never be called. */
export async function loadAsClient(call: Call, document: ConfigDocument): Promise<string[]> {
  // A list in the list is a batch.
  let left = document.subsystems.flatMap(({ config }) => config ?? []).flat();
  for (let progress = true; left.length > 0 && progress; ) {
    const allowed = (await call('rpc_get_methods', { current: true })) as string[];
    progress = false;
    const later = [];
    for (const step of left) {
      if (allowed.includes(step.method)) {
        await call(step.method, step.params ?? {});
        progress = true;
      } else {
        later.push(step);
      }
    }
    left = later;
    if (allowed.includes('framework_start_init')) {
      await call('framework_start_init');
      progress = true;
    }
  }
  return left.map(({ method }) => method);
}

/** A call whose paths are in a folder that is known only when it runs. */
export type Change = (folder: string) => { readonly method: string; readonly params: object };

const FILES = ['a.img', 'b.img', 'c.img'];
export const FILE_BYTES = 1024 * 1024;

/** The files and folders that changes speak of. */
export function prepareFolder(folder: string): void {
  for (const file of FILES) {
    writeFileSync(join(folder, file), '');
    truncateSync(join(folder, file), FILE_BYTES);
  }
  for (const vm of [0, 1, 2, 3]) {
    mkdirSync(join(folder, `vm${vm}`), { recursive: true });
  }
}

const optional = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined, freq: 2 });
const bdevName = fc.constantFrom('b0', 'b1', 'b2', 'b3', 'Malloc0');
const nqn = fc.constantFrom(0, 1, 2).map((n) => `nqn.2026-11.io.example:s${n}`);
const host = fc.constantFrom(0, 1).map((n) => `nqn.2026-11.io.example:h${n}`);
const hex = (digits: number) =>
  fc
    .array(fc.constantFrom(...'0123456789abcdef'), { minLength: digits, maxLength: digits })
    .map((list) => list.join(''));
const geometry = {
  block_size: fc.constantFrom(512, 4096),
  num_blocks: fc.integer({ min: 1, max: 4096 }),
  uuid: optional(fc.uuid()),
};
const fileParams = {
  name: bdevName,
  filename: fc.constantFrom(...FILES),
  block_size: optional(fc.constantFrom(512, 4096)),
  uuid: optional(fc.uuid()),
  readonly: optional(fc.boolean()),
  direct: optional(fc.boolean()),
};

const plain = (method: string, params: Record<string, fc.Arbitrary<unknown>>) =>
  fc.record(params).map(
    (values): Change =>
      () => ({ method, params: values }),
  );
const file = (method: string, params: typeof fileParams) =>
  fc.record(params).map(
    (values): Change =>
      (folder) => ({ method, params: { ...values, filename: join(folder, values.filename!) } }),
  );
const listener = (method: string) =>
  fc.record({ nqn, vm: fc.integer({ min: 0, max: 3 }), trsvcid: optional(fc.constant('0')) }).map(
    ({ nqn, vm, trsvcid }): Change =>
      (folder) => {
        const traddr = join(folder, `vm${vm}`);
        return { method, params: { nqn, listen_address: { trtype: 'VFIOUSER', traddr, trsvcid } } };
      },
  );

/** A change that may or may not be possible. */
export const change: fc.Arbitrary<Change> = fc.oneof(
  file('bdev_aio_create', { ...fileParams, nowait: optional(fc.boolean()) } as typeof fileParams),
  file('bdev_uring_create', fileParams),
  plain('bdev_malloc_create', { name: optional(bdevName), ...geometry }),
  plain('bdev_null_create', { name: bdevName, ...geometry }),
  plain('bdev_null_resize', { name: bdevName, new_size: fc.integer({ min: 1, max: 8 }) }),
  plain('bdev_set_qos_limit', {
    name: bdevName,
    rw_ios_per_sec: optional(fc.constantFrom(0, 1, 20_000)),
    rw_mbytes_per_sec: optional(fc.constantFrom(0, 100)),
    r_mbytes_per_sec: optional(fc.constantFrom(0, 10)),
    w_mbytes_per_sec: optional(fc.constantFrom(0, 7)),
  }),
  plain('bdev_delay_create', {
    name: fc.constantFrom('d0', 'd1'),
    base_bdev_name: bdevName,
    avg_read_latency: fc.constantFrom(0, 5),
    p99_read_latency: fc.constantFrom(5, 9),
    avg_write_latency: fc.constantFrom(0, 5),
    p99_write_latency: fc.constant(9),
  }),
  plain('bdev_error_create', { base_name: bdevName, uuid: optional(fc.uuid()) }),
  plain('bdev_malloc_delete', { name: bdevName }),
  plain('bdev_aio_delete', { name: bdevName }),
  plain('nvmf_create_transport', {
    trtype: fc.constantFrom('VFIOUSER', 'vfiouser'),
    max_queue_depth: optional(fc.integer({ min: 2, max: 4096 })),
    max_io_qpairs_per_ctrlr: optional(fc.integer({ min: 1, max: 64 })),
    max_io_size: optional(fc.constantFrom(4096, 131072)),
    disable_mappable_bar0: optional(fc.boolean()),
    map_file_memory: optional(fc.boolean()),
    require_shared_memory: optional(fc.boolean()),
    disable_adaptive_irq: optional(fc.boolean()),
    disable_shadow_doorbells: optional(fc.boolean()),
    max_aq_depth: optional(fc.constantFrom(32, 64)),
    kas: optional(fc.constantFrom(100, 7)),
    abort_timeout_sec: optional(fc.constantFrom(1, 2)),
  }),
  plain('nvmf_create_subsystem', {
    nqn,
    serial_number: optional(fc.constantFrom('SPDK0', '')),
    model_number: optional(fc.constantFrom('A disk', 'Another disk')),
    admin_label: optional(fc.constant('the label')),
    max_namespaces: optional(fc.constantFrom(0, 3, 256)),
    allow_any_host: optional(fc.boolean()),
    min_cntlid: optional(fc.constantFrom(1, 5)),
    max_cntlid: optional(fc.constantFrom(8, 0xffef)),
    dmrsl: optional(fc.constantFrom(0, 9)),
    wzsl: optional(fc.constantFrom(0, 9)),
  }),
  plain('nvmf_delete_subsystem', { nqn }),
  plain('nvmf_subsystem_allow_any_host', { nqn, allow_any_host: fc.boolean() }),
  plain('nvmf_subsystem_add_host', { nqn, host }),
  plain('nvmf_subsystem_remove_host', { nqn, host }),
  plain('nvmf_subsystem_add_ns', {
    nqn,
    namespace: fc.record({
      bdev_name: fc.oneof(bdevName, fc.constantFrom('d0', 'd1', 'EE_b0', 'EE_b1')),
      nsid: optional(fc.integer({ min: 0, max: 4 })),
      uuid: optional(fc.uuid()),
      nguid: optional(hex(32)),
      eui64: optional(hex(16)),
    }),
  }),
  plain('nvmf_subsystem_remove_ns', { nqn, nsid: fc.integer({ min: 1, max: 4 }) }),
  listener('nvmf_subsystem_add_listener'),
  listener('nvmf_subsystem_remove_listener'),
);

/** Makes the changes that are possible; gives how many were. */
export async function apply(
  call: Call,
  folder: string,
  changes: readonly Change[],
): Promise<number> {
  let made = 0;
  for (const change of changes) {
    const { method, params } = change(folder);
    try {
      // The params that are there on the wire.
      await call(method, JSON.parse(JSON.stringify(params)));
      made += 1;
    } catch (error) {
      if (!(error instanceof RpcError)) {
        throw error;
      }
    }
  }
  return made;
}
