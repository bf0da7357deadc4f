/** All troubles, by the test that plays them. */
import type { Trouble } from '../neighbour/trouble.ts';
import { ADMINISTRATION_TROUBLES } from './administration.ts';
import { DESCRIPTOR_TROUBLES } from './descriptors.ts';
import { DISK_TROUBLES } from './disks.ts';
import { EVENTFD_TROUBLES } from './eventfds.ts';
import { FLOOD_TROUBLES } from './floods.ts';
import { MEMORY_TROUBLES } from './memory.ts';
import { SOCKET_TROUBLES } from './sockets.ts';

export const FAMILIES = {
  disks: DISK_TROUBLES,
  administration: ADMINISTRATION_TROUBLES,
  vmm: [...EVENTFD_TROUBLES, ...MEMORY_TROUBLES, ...DESCRIPTOR_TROUBLES, ...SOCKET_TROUBLES],
  floods: FLOOD_TROUBLES,
} as const satisfies Readonly<Record<string, readonly Trouble[]>>;
