/**
 * Format NVM. There is one LBA format; what is formatted is erased, whether the host asks for a secure erase or not, and reads as zeroes.
 * NVMe Base 2.0 §5.14. Owned by main.
 */
import { FormatNvm, SecureErase } from '../../spec/admin.ts';
import { SelfTestEnd } from '../../spec/logs.ts';
import { NSID_ALL, Status } from '../../spec/nvme.ts';
import { eraseNamespace } from '../erase.ts';
import type { ControllerHost } from '../host.ts';
import {
  type AdminCommand,
  type AdminContext,
  adminCommand,
  done,
  type Result,
  refuse,
} from './command.ts';

/** The namespaces to be formatted, or a status. */
function formatted(nsid: number, { host, config }: AdminContext): readonly number[] | number {
  if (nsid === NSID_ALL) {
    return [...host.namespaces.keys()];
  }
  if (nsid === 0 || nsid > config.maxNamespaces) {
    return Status.INVALID_NAMESPACE;
  }
  return host.namespaces.has(nsid) ? [nsid] : Status.INVALID_FIELD;
}

/** Resolves with a status. */
async function format(host: ControllerHost, nsids: readonly number[]): Promise<number> {
  try {
    await host.occupyNamespaces(nsids, Status.FORMAT_IN_PROGRESS);
    return await host.maintain(async (operate) => {
      for (const nsid of nsids) {
        const status = await eraseNamespace(host, operate, nsid, { deallocate: true }, (done) =>
          host.setFormatLeft(nsid, Math.ceil(100 * (1 - done))),
        );
        if (status !== Status.SUCCESS) {
          return status;
        }
      }
      return Status.SUCCESS;
    });
  } finally {
    for (const nsid of nsids) {
      host.setFormatLeft(nsid, 0);
    }
    await host.occupyNamespaces(nsids, Status.SUCCESS);
  }
}

export const FORMAT_COMMANDS: readonly AdminCommand[] = [
  adminCommand(
    FormatNvm,
    ({ lbafL, lbafU, mset, pi, pil, ses }, context, command): Result | Promise<Result> => {
      const { host, selfTests } = context;
      const nsids = formatted(command.nsid, context);
      if (typeof nsids === 'number') {
        return done(nsids);
      }
      if (lbafL !== 0 || lbafU !== 0) {
        return refuse(FormatNvm, 'lbafL', Status.INVALID_FORMAT);
      }
      if (mset || pil || pi !== 0) {
        return refuse(FormatNvm, 'pi', Status.INVALID_FORMAT);
      }
      if (ses > SecureErase.USER_DATA) {
        return refuse(FormatNvm, 'ses');
      }
      const busy = nsids.map((nsid) => host.namespaces.get(nsid)!);
      if (busy.some(({ conflicts }) => conflicts)) {
        return done(Status.RESERVATION_CONFLICT);
      }
      if (busy.some(({ readonly }) => readonly)) {
        return done(Status.NAMESPACE_WRITE_PROTECTED);
      }
      if (busy.some(({ occupied }) => occupied)) {
        return done(Status.FORMAT_IN_PROGRESS);
      }
      selfTests.stop(SelfTestEnd.FORMAT, nsids);
      return format(host, nsids).then((status) => done(status));
    },
    { oacs: 'format', effects: { lbcc: true, ncc: true, cse: 1 }, identify: { fna: 0 } },
  ),
];
