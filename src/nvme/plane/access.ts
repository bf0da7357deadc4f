/**
 * What the commands of a controller may do to its namespaces, which others decide: write protection, commands that take a namespace for
 * themselves, reservations. The hot path pays nothing for it: a namespace that may not be read is not where commands look for it, and their
 * way to "no such namespace" leads here.
 */
import { Status } from '../../spec/nvme.ts';
import type { Access } from '../namespace-state.ts';
import type { IoController, IoNamespace } from './view.ts';

/** The namespace, wherever it is kept. */
export function findNamespace(
  { namespaces, barred }: IoController,
  nsid: number,
): IoNamespace | undefined {
  return namespaces[nsid - 1] ?? barred.get(nsid);
}

/** Puts a namespace where commands find it, if they may. */
export function placeNamespace(controller: IoController, namespace: IoNamespace): void {
  const { namespaces, barred } = controller;
  const { nsid } = namespace;
  while (namespaces.length < nsid) {
    namespaces.push(undefined);
  }
  const isBarred = namespace.readStatus !== Status.SUCCESS;
  namespaces[nsid - 1] = isBarred ? undefined : namespace;
  if (isBarred) {
    barred.set(nsid, namespace);
  } else {
    barred.delete(nsid);
  }
}

/** No command finds it any more. */
export function takeNamespace({ namespaces, barred }: IoController, nsid: number): void {
  namespaces[nsid - 1] = undefined;
  barred.delete(nsid);
}

/** From now on. */
export function setAccess(
  controller: IoController,
  namespace: IoNamespace,
  { read, write }: Access,
): void {
  namespace.readStatus = read;
  namespace.writeStatus = write;
  namespace.readonly = write !== Status.SUCCESS;
  placeNamespace(controller, namespace);
}

/** The status of a command that finds no namespace. */
export function statusOfMissing({ barred }: IoController, nsid: number): number {
  return barred.get(nsid)?.readStatus ?? Status.INVALID_NAMESPACE;
}
