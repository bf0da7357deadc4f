/**
 * SET_IRQS: which vectors, what to do with them, and with which data. vfio-user: DEVICE_SET_IRQS.
 *
 * | data, action        | start, count | does                                             |
 * |---------------------|--------------|--------------------------------------------------|
 * | NONE TRIGGER        | 0, 0         | disables the index                               |
 * | NONE/BOOL TRIGGER   | s, n         | fires the vectors (those whose byte is not 0)    |
 * | EVENTFD TRIGGER     | s, n         | connects n descriptors, or disconnects if none   |
 * | NONE/BOOL MASK/UNM. | s, n         | masks or unmasks (those whose byte is not 0)     |
 * | EVENTFD UNMASK      | 0, 1         | sets or clears the eventfd that unmasks vector 0 |
 *
 * All else is EINVAL. Unlike libvfio-user's, which goes on to the index's last vector, a range ends where it ends.
 */
import {
  IRQ_SET_ACTION_MASK,
  IRQ_SET_DATA_MASK,
  IrqSet,
  IrqSetAction,
  IrqSetData,
  PciIrq,
} from '../spec/vfio-user.ts';
import type { Message } from './codec.ts';
import { Refusal } from './refusal.ts';
import { type Context, DONE, type Handler, readSized, whenDone } from './request.ts';

const { NONE, BOOL, EVENTFD } = IrqSetData;
const { MASK, UNMASK, TRIGGER } = IrqSetAction;

/** Which vectors: `count` from `start` on. The index has them all. */
interface Range {
  readonly index: number;
  readonly start: number;
  readonly count: number;
}

export const setIrqs: Handler = (context, request) => {
  const { flags, index, start, count } = readSized(request, IrqSet);
  const data = flags & IRQ_SET_DATA_MASK;
  const action = flags & IRQ_SET_ACTION_MASK;
  checkFlags(flags, data, action);
  checkRange(context, { index, start, count }, data, action);
  checkData(request, data, count);
  const range = { index, start, count };
  if (data === EVENTFD) return setEventfds(context, request, range, action);
  if (count === 0) return whenDone(context.device.disableIrqs(index), DONE);
  const which = selectVectors(request, data, count);
  if (action === TRIGGER) context.device.triggerIrqs(index, start, which);
  else context.device.maskIrqs(index, start, which, action === MASK);
  return DONE;
};

function checkFlags(flags: number, data: number, action: number): void {
  const oneData = data === NONE || data === BOOL || data === EVENTFD;
  const oneAction = action === MASK || action === UNMASK || action === TRIGGER;
  if (!oneData || !oneAction || (flags & ~(IRQ_SET_DATA_MASK | IRQ_SET_ACTION_MASK)) !== 0) {
    throw new Refusal('EINVAL', `SET_IRQS flags 0x${flags.toString(16)}`);
  }
}

function checkRange({ device }: Context, range: Range, data: number, action: number): void {
  const { index, start, count } = range;
  const vectors = device.irqs.find((irq) => irq.index === index)?.count ?? 0;
  if (start >= vectors || start + count > vectors) {
    throw new Refusal(
      'EINVAL',
      `SET_IRQS of ${count} vectors from ${start}: index ${index} has ${vectors}`,
    );
  }
  if (count === 0 && !(data === NONE && action === TRIGGER && start === 0)) {
    throw new Refusal('EINVAL', 'SET_IRQS of no vectors');
  }
  if ((index === PciIrq.ERR || index === PciIrq.REQ) && (action !== TRIGGER || count > 1)) {
    throw new Refusal('EINVAL', `SET_IRQS: index ${index} can only be triggered, as one`);
  }
}

/** Descriptors come with EVENTFD alone, for all vectors or none; bytes with BOOL alone, for all. */
function checkData({ fds, payload }: Message, data: number, count: number): void {
  if (fds.length !== 0 && (data !== EVENTFD || fds.length !== count)) {
    throw new Refusal('EINVAL', `SET_IRQS of ${count} vectors with ${fds.length} descriptors`);
  }
  const bytes = payload.length - IrqSet.size;
  if (bytes !== (data === BOOL ? count : 0)) {
    throw new Refusal('EINVAL', `SET_IRQS of ${count} vectors with ${bytes} bytes of data`);
  }
}

function setEventfds({ device }: Context, request: Message, range: Range, action: number) {
  const { index, start, count } = range;
  if (action === TRIGGER) {
    const fds = request.fds.length === 0 ? Array(count).fill(undefined) : request.fds.splice(0);
    return whenDone(device.setIrqEventfds(index, start, fds), DONE);
  }
  if (action === UNMASK && start === 0 && count === 1) {
    return whenDone(device.setIrqUnmaskEventfd(index, request.fds.pop()), DONE);
  }
  throw new Refusal('EINVAL', 'SET_IRQS: only vector 0 can be unmasked by an eventfd');
}

function selectVectors({ payload }: Message, data: number, count: number): boolean[] {
  return Array.from({ length: count }, (_, i) => data === NONE || payload[IrqSet.size + i] !== 0);
}
