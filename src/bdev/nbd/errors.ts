/** What a server says of a request that failed → what happened. */
import { NbdCommand, NbdError } from '../../spec/nbd.ts';
import { Result } from '../result.ts';

/** `error`: not 0. */
export function resultOf(command: number, error: number): number {
  if (command === NbdCommand.FLUSH) {
    return Result.NOT_DURABLE;
  }
  const isRead = command === NbdCommand.READ;
  switch (error) {
    case NbdError.ENOSPC:
      return Result.NO_SPACE;
    case NbdError.EPERM:
      return isRead ? Result.FAILED : Result.READ_ONLY;
    case NbdError.ENOMEM:
      return Result.FAILED;
    case NbdError.ENOTSUP:
    case NbdError.EOVERFLOW:
      return command > NbdCommand.FLUSH ? Result.UNSUPPORTED : Result.FAILED;
    default:
      return isRead ? Result.READ_ERROR : Result.WRITE_ERROR;
  }
}
