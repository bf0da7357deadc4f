/** Controllers, as parameters of several methods name them. */
import { Type } from 'typebox';
import type { Target } from '../target/target.ts';
import type { ControllerInfo } from '../target/types.ts';
import { ErrnoError, InvalidError } from '../util/errors.ts';
import { Path, Text, U16_MAX, Uint } from '../util/schema.ts';

const { Optional } = Type;

export const CONTROLLER_NAME = {
  nqn: Optional(Text('the controllers of this subsystem')),
  socket: Optional(Path('the controller of the client at this socket')),
  cntlid: Optional(Uint('only this one', U16_MAX)),
};

export interface FoundController {
  readonly nqn: string;
  readonly socket: string;
  readonly controller: ControllerInfo;
}

/** At least one. Throws InvalidError if there is no such subsystem or socket, ENODEV if no client is connected there. */
export function findControllers(
  target: Target,
  name: {
    readonly nqn?: string | undefined;
    readonly socket?: string | undefined;
    readonly cntlid?: number | undefined;
  },
): FoundController[] {
  const { nqn, socket, cntlid } = name;
  if ((nqn === undefined) === (socket === undefined)) {
    throw new InvalidError(`either key 'nqn' or key 'socket' says which controller`);
  }
  const subsystems = nqn === undefined ? target.subsystems : [target.subsystem(nqn)];
  const listeners = subsystems.flatMap(({ nqn, listeners }) =>
    [...listeners].map(([path, { endpoint }]) => ({ nqn, socket: path, endpoint })),
  );
  const here = listeners.filter((each) => socket === undefined || each.socket === socket);
  if (here.length === 0 && socket !== undefined) {
    throw new InvalidError(`key 'socket': nobody listens at ${socket}`);
  }
  const found = here.flatMap(({ endpoint: { controller }, ...where }) =>
    controller === undefined || (cntlid !== undefined && controller.cntlid !== cntlid)
      ? []
      : [{ ...where, controller }],
  );
  if (found.length === 0) {
    throw new ErrnoError('ENODEV', 'no such controller: no client is connected');
  }
  return found;
}
