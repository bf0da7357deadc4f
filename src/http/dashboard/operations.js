/** What an operator does, as calls of the target's methods. Each either happens as a whole, or takes back what it had begun. */

import { FieldError, parseSize } from './format.js';
import { call, RpcError } from './rpc.js';

/** Subsystems that are given by a short name. */
const NQN_PREFIX = 'nqn.2026-11.io.doorbell:';
const MIB = 2 ** 20;

/** @param {string} name a short name, or an NQN */
export function nqnOf(name) {
  return name.startsWith('nqn.') ? name : `${NQN_PREFIX}${name}`;
}

/**
 * Makes a disk and returns its name.
 *
 * @param {object} disk
 * @param {'new-file' | 'file' | 'malloc' | 'null'} disk.kind
 * @param {string} disk.name
 * @param {string} disk.filename of a file
 * @param {string} disk.size unless the file is there
 * @param {number | undefined} disk.blockSize `undefined`: what the device has, or 512
 * @param {boolean} disk.readonly of a file
 * @param {boolean} disk.direct of a file
 * @param {string} [disk.nqn] the VM that gets it at once
 */
export async function createDisk({ kind, name, filename, size, blockSize, readonly, direct, nqn }) {
  if (await exists(name)) throw new FieldError('name', `A disk ${name} exists already.`);
  if (kind === 'malloc' || kind === 'null') {
    const block_size = blockSize ?? 512;
    const bytes = parseSize(size);
    if (bytes % block_size !== 0) {
      throw new FieldError('size', `The size must be a multiple of ${block_size} bytes.`);
    }
    await call(`bdev_${kind}_create`, { name, block_size, num_blocks: bytes / block_size });
  } else {
    if (kind === 'new-file') {
      await call('doorbell_create_disk_file', { filename, size: parseSize(size) });
    }
    const block_size = blockSize === undefined ? {} : { block_size: blockSize };
    try {
      await call('bdev_aio_create', { name, filename, ...block_size, readonly, direct });
    } catch (error) {
      // A file is not ours to delete.
      if (kind === 'file' || !(error instanceof Error)) throw error;
      throw new Error(`${error.message}. The file is made: go on with a file that is there.`);
    }
  }
  if (nqn === undefined) return;
  try {
    await addNamespace(nqn, name);
  } catch (error) {
    const module = kind === 'malloc' || kind === 'null' ? kind : 'aio';
    await deleteDisk({ name, module }).catch(() => {});
    throw error;
  }
}

/** @param {string} name of a disk */
async function exists(name) {
  try {
    return (await call('bdev_get_bdevs', { name })).length > 0;
  } catch (error) {
    if (error instanceof RpcError) return false;
    throw error;
  }
}

/** @param {string} nqn @param {string} bdev @param {number} [nsid] default: the smallest that is free */
export async function addNamespace(nqn, bdev, nsid) {
  return call('nvmf_subsystem_add_ns', {
    nqn,
    namespace: { bdev_name: bdev, ...(nsid !== undefined && { nsid }) },
  });
}

/** @param {string} nqn @param {number} nsid */
export async function removeNamespace(nqn, nsid) {
  await call('nvmf_subsystem_remove_ns', { nqn, nsid });
}

/** @param {string} traddr folder of the socket */
function listenAddress(traddr) {
  return { trtype: 'VFIOUSER', traddr };
}

/**
 * Listens for a VM in a folder, which is made if it is not there.
 *
 * @param {string} nqn
 * @param {string} folder
 */
export async function addSocket(nqn, folder) {
  if ((await call('nvmf_get_transports')).length === 0) {
    await call('nvmf_create_transport', {
      trtype: 'VFIOUSER',
      max_io_size: MIB,
      max_queue_depth: 1024,
    });
  }
  await call('doorbell_create_socket_folder', { folder });
  await call('nvmf_subsystem_add_listener', { nqn, listen_address: listenAddress(folder) });
}

/** @param {string} nqn @param {string} socket */
export async function removeSocket(nqn, socket) {
  const folder = socket.replace(/\/cntrl$/, '');
  await call('nvmf_subsystem_remove_listener', { nqn, listen_address: listenAddress(folder) });
}

/**
 * Makes a subsystem with its namespaces and a socket. If something is in the way, nothing is left of it.
 *
 * @param {{ name: string, folder: string, bdevs: readonly string[] }} vm
 * @returns {Promise<{ nqn: string, socket: string }>}
 */
export async function createVm({ name, folder, bdevs }) {
  const nqn = nqnOf(name);
  const random = crypto.getRandomValues(new Uint8Array(8));
  // Guests tell disks of several controllers apart by it.
  const serial_number = `DB${[...random]
    .map((byte) => byte.toString(16).padStart(2, '0'))
    .join('')
    .toUpperCase()}`;
  await call('nvmf_create_subsystem', { nqn, serial_number, allow_any_host: true });
  try {
    for (const bdev of bdevs) await addNamespace(nqn, bdev);
    await addSocket(nqn, folder);
  } catch (error) {
    await call('nvmf_delete_subsystem', { nqn }).catch(() => {});
    throw error;
  }
  return { nqn, socket: `${folder.replace(/\/+$/, '')}/cntrl` };
}

/** @param {string} nqn */
export async function deleteVm(nqn) {
  await call('nvmf_delete_subsystem', { nqn });
}

/** @param {{ name: string, module: string }} bdev */
export async function deleteDisk({ name, module }) {
  await call(module === 'nbd' ? 'bdev_nbd_disconnect' : `bdev_${module}_delete`, { name });
}

/** @param {string} name @param {string} size */
export async function resizeNull(name, size) {
  const bytes = parseSize(size);
  if (bytes % MIB !== 0) throw new FieldError('size', 'The size must be a multiple of 1 MiB.');
  await call('bdev_null_resize', { name, new_size: bytes / MIB });
}

/** Takes over the size that the file has now. @param {{ name: string, module: string }} bdev */
export async function rescan({ name, module }) {
  await call(`bdev_${module}_rescan`, { name });
}

/** @typedef {{ rw_ios_per_sec: number, rw_mbytes_per_sec: number, r_mbytes_per_sec: number, w_mbytes_per_sec: number }} Limits */

/** @param {string} name @returns {Promise<{ limits: Limits, filename: string | undefined }>} */
export async function describeDisk(name) {
  const [bdev] = await call('bdev_get_bdevs', { name });
  const { aio, uring } = bdev.driver_specific ?? {};
  return { limits: bdev.assigned_rate_limits, filename: (aio ?? uring)?.filename };
}

/** 0: no limit. @param {string} name @param {Limits} limits */
export async function setLimits(name, limits) {
  await call('bdev_set_qos_limit', { name, ...limits });
}

/** The methods of the target. @returns {Promise<Set<string>>} */
export async function methods() {
  try {
    return new Set(await call('rpc_get_methods'));
  } catch (error) {
    if (error instanceof RpcError) return new Set();
    throw error;
  }
}
