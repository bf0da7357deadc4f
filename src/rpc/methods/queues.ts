/** Where queues are worked on: a method of our own. */
import { Type } from 'typebox';
import { MAX_IO_QUEUE_PAIRS } from '../../limits.ts';
import type { Target } from '../../target/target.ts';
import { InvalidError } from '../../util/errors.ts';
import { DONE, Uint } from '../../util/schema.ts';
import { method } from '../dispatcher.ts';
import { CONTROLLER_NAME, findControllers } from '../find-controllers.ts';

export function queueMethods(target: Target) {
  return [
    method({
      name: 'doorbell_move_queue',
      summary:
        'Moves an I/O completion queue with its submission queues to another reactor while the guest works. Result: true, once they go on there. ' +
        'They stay where they are, and go on, if commands in flight do not end within a second, or the guest changes its queues: -16.',
      params: Type.Object({
        ...CONTROLLER_NAME,
        cqid: Uint('of the completion queue', MAX_IO_QUEUE_PAIRS, 1),
        reactor: Uint('index of the reactor, from 0 on', 0xffff),
      }),
      result: DONE,
      examples: [{ params: { socket: '/run/vm0/cntrl', cqid: 1, reactor: 1 }, result: true }],
      call: async ({ cqid, reactor, ...name }) => {
        const [found, ...others] = findControllers(target, name);
        if (others.length > 0) {
          throw new InvalidError(`several controllers: key 'socket' or 'cntlid' says which`);
        }
        await target.moveQueue(found.nqn, found.socket, cqid, reactor);
        return true;
      },
    }),
  ];
}
