/** A report on disk about what every guest is doing, without ending anything: a method of our own. */
import { Type } from 'typebox';
import { Asked, saveReport } from '../../target/report.ts';
import type { Target } from '../../target/target.ts';
import { Text } from '../../util/schema.ts';
import { method } from '../dispatcher.ts';

export function dumpMethods(target: Target) {
  return [
    method({
      name: 'doorbell_dump',
      summary:
        'Writes a report of the state into a file, as a crash or SIGQUIT does. Result: its path, on the host of the target.',
      params: Type.Object({}),
      result: Type.Object({ path: Text('of the file') }),
      call: async () => ({ path: await saveReport(target, target.reportFolder, Asked.RPC) }),
    }),
  ];
}
