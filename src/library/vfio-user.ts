/** `doorbell-nvme/vfio-user`: PCI devices for virtual machines. docs/guides/pci-device.md makes one. */
import { native } from '../native/index.ts';
import { VfioUserServer, type VfioUserServerOptions } from '../vfio-user/server.ts';

export type { Capability, MsixPlacement } from '../pci/capabilities.ts';
export type { PciIdentity } from '../pci/config-space.ts';
export type { Dma, DmaView } from '../pci/dma.ts';
export {
  type PciBar,
  type PciDefinition,
  type PciEvents,
  PciFunction,
  type PciInterrupts,
} from '../pci/function.ts';
export type { Irq } from '../pci/irq.ts';
export { RegionMemory } from '../pci/region-memory.ts';
export type { Client } from '../vfio-user/device.ts';
export { Refusal } from '../vfio-user/refusal.ts';
export type { VfioUserServer } from '../vfio-user/server.ts';
export type { SessionEvent } from '../vfio-user/session.ts';

export interface ServeOptions
  extends Pick<
    VfioUserServerOptions,
    'accept' | 'onEvent' | 'onExhausted' | 'negotiationTimeoutMs' | 'dmaLayout'
  > {
  /** Of the UNIX socket, at most 107 bytes. */
  readonly path?: string;
  /** Instead: a socket that another process opened, listening, or connected to the one client there will be. It stays open. */
  readonly fd?: number;
}

/**
 * Serves clients on a socket, one after the other: `accept` makes a function for each. A process may serve any number of sockets. Throws EADDRINUSE
 * if someone answers on the path, ENOENT if its folder does not exist, ENOTSOCK if the descriptor is no socket.
 */
export function serve(options: ServeOptions): VfioUserServer {
  const { path, fd, ...rest } = options;
  if (fd !== undefined) {
    const passed = { fd, ...native.socketAdopt(fd) };
    return new VfioUserServer({ ...rest, path: passed.address, passed });
  }
  if (path === undefined) {
    throw new TypeError('neither a path nor a descriptor to serve on');
  }
  return new VfioUserServer({ ...rest, path });
}
