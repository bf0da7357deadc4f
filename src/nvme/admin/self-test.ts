/** Device Self-test. NVMe Base 2.0 §5.9. Owned by main; the test itself is `../self-test.ts`. */
import { DeviceSelfTest, SelfTestCode } from '../../spec/admin.ts';
import { SelfTestEnd } from '../../spec/logs.ts';
import { NSID_ALL, Status } from '../../spec/nvme.ts';
import {
  type AdminCommand,
  type AdminContext,
  adminCommand,
  done,
  refuse,
  SUCCESS,
} from './command.ts';

/** The namespaces that a test is about, or a status. NSID 0: none, the controller alone. */
function tested(nsid: number, { host, config }: AdminContext): readonly number[] | number {
  if (nsid === 0) {
    return [];
  }
  if (nsid === NSID_ALL) {
    return [...host.namespaces.keys()];
  }
  if (nsid > config.maxNamespaces) {
    return Status.INVALID_NAMESPACE;
  }
  return host.namespaces.has(nsid) ? [nsid] : Status.INVALID_FIELD;
}

export const SELF_TEST_COMMANDS: readonly AdminCommand[] = [
  adminCommand(
    DeviceSelfTest,
    ({ stc }, context, { nsid }) => {
      const { selfTests } = context;
      if (stc === SelfTestCode.ABORT) {
        selfTests.stop(SelfTestEnd.ABORTED);
        return SUCCESS;
      }
      if (stc !== SelfTestCode.SHORT && stc !== SelfTestCode.EXTENDED) {
        return refuse(DeviceSelfTest, 'stc');
      }
      const nsids = tested(nsid, context);
      if (typeof nsids === 'number') {
        return done(nsids);
      }
      if (selfTests.isRunning) {
        return done(Status.SELF_TEST_IN_PROGRESS);
      }
      selfTests.start(stc, nsids);
      return SUCCESS;
    },
    { oacs: 'selfTest' },
  ),
];
