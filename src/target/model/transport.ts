/** The vfio-user transport: what nvmf_create_transport makes of its parameters, and the parameters that make it again. */
import { MAX_IO_QUEUE_PAIRS, MAX_TRANSFER_BYTES, PAGE_SIZE } from '../../limits.ts';
import { InvalidError } from '../../util/errors.ts';
import type { TransportOptions } from '../types.ts';
import type { Params } from './plan.ts';

export interface Transport {
  readonly options: TransportOptions;
  /** What nvmf_get_transports shows. */
  readonly report: Readonly<Record<string, unknown>>;
}

/** Those parameters of nvmf_create_transport that mean something, or are shown. */
export interface TransportParams {
  readonly trtype: string;
  readonly max_queue_depth?: number;
  readonly max_io_qpairs_per_ctrlr?: number;
  readonly max_io_size?: number;
  readonly disable_mappable_bar0?: boolean;
  readonly map_file_memory?: boolean;
  readonly require_shared_memory?: boolean;
  readonly disable_shadow_doorbells?: boolean;
  readonly disable_adaptive_irq?: boolean;
  readonly max_aq_depth?: number;
  readonly in_capsule_data_size?: number;
  readonly iobuf_small_cache_size?: number;
  readonly iobuf_large_cache_size?: number;
  readonly abort_timeout_sec?: number;
  readonly ack_timeout?: number;
  readonly data_wr_pool_size?: number;
  readonly disable_command_passthru?: boolean;
  readonly kas?: number;
  readonly min_kato?: number;
}

export function isVfioUser(trtype: string): boolean {
  return trtype.toUpperCase() === 'VFIOUSER';
}

/** Throws InvalidError. */
export function planTransport(params: TransportParams): Transport {
  if (!isVfioUser(params.trtype)) {
    const reason = `Invalid transport type '${params.trtype}' (there is only VFIOUSER)`;
    throw new InvalidError(reason, { key: 'trtype' });
  }
  const {
    max_queue_depth = 256,
    max_io_size = 131072,
    disable_mappable_bar0 = false,
    map_file_memory = false,
    require_shared_memory = false,
    disable_shadow_doorbells = false,
    disable_adaptive_irq = false,
  } = params;
  // SPDK's default, 127, is more than there can be.
  const max_io_qpairs_per_ctrlr = Math.min(
    params.max_io_qpairs_per_ctrlr ?? MAX_IO_QUEUE_PAIRS,
    MAX_IO_QUEUE_PAIRS,
  );
  if (!Number.isInteger(Math.log2(max_io_size / PAGE_SIZE))) {
    throw new InvalidError(`key 'max_io_size' must be ${PAGE_SIZE} times a power of two`);
  }
  return {
    options: {
      maxQueueDepth: max_queue_depth,
      maxIoQpairsPerCtrlr: max_io_qpairs_per_ctrlr,
      maxIoSize: max_io_size,
      disableMappableBar0: disable_mappable_bar0,
      mapFileMemory: map_file_memory,
      requireSharedMemory: require_shared_memory,
      shadowDoorbells: disable_mappable_bar0 && !disable_shadow_doorbells,
      adaptiveInterrupts: !disable_adaptive_irq,
    },
    report: {
      trtype: 'VFIOUSER',
      max_queue_depth,
      max_io_qpairs_per_ctrlr,
      in_capsule_data_size: params.in_capsule_data_size ?? 0,
      max_io_size,
      max_aq_depth: params.max_aq_depth ?? 32,
      iobuf_small_cache_size: params.iobuf_small_cache_size ?? 0,
      iobuf_large_cache_size: params.iobuf_large_cache_size ?? 0,
      dif_insert_or_strip: false,
      zcopy: false,
      abort_timeout_sec: params.abort_timeout_sec ?? 0,
      ack_timeout: params.ack_timeout ?? 0,
      data_wr_pool_size: params.data_wr_pool_size ?? 0,
      disable_command_passthru: params.disable_command_passthru ?? false,
      kas: params.kas ?? 100,
      min_kato: params.min_kato ?? 10000,
    },
  };
}

/** The parameters that make it again. */
export function transportParams({ options, report }: Transport): Params {
  return {
    ...report,
    disable_mappable_bar0: options.disableMappableBar0,
    ...(options.mapFileMemory && { map_file_memory: true }),
    ...(options.requireSharedMemory && { require_shared_memory: true }),
    disable_adaptive_irq: !options.adaptiveInterrupts,
    disable_shadow_doorbells: options.disableMappableBar0 && !options.shadowDoorbells,
  };
}

/** What the operator chooses of the transport that `doorbell serve` makes. */
export interface TransportChoices {
  /** Clients cannot map the doorbells, and guests are offered shadow doorbells. */
  readonly trapDoorbells?: boolean | undefined;
  /** See `map_file_memory`. */
  readonly mapFileMemory?: boolean | undefined;
  /** See `require_shared_memory`. */
  readonly requireSharedMemory?: boolean | undefined;
}

/** The transport that `doorbell serve` makes: as large as the controller can do. */
export function largestTransport(choices: TransportChoices): Transport {
  return planTransport({
    disable_mappable_bar0: choices.trapDoorbells ?? false,
    map_file_memory: choices.mapFileMemory ?? false,
    require_shared_memory: choices.requireSharedMemory ?? false,
    trtype: 'VFIOUSER',
    max_queue_depth: 1024,
    max_io_qpairs_per_ctrlr: MAX_IO_QUEUE_PAIRS,
    max_io_size: MAX_TRANSFER_BYTES,
  });
}
