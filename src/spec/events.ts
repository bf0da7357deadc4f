/** Asynchronous events: types, what they carry, how they are reported. Layouts only. NVMe Base 2.0 §5.2. */
import { bits, word } from '../util/bits.ts';

/** Dword 0 of an Asynchronous Event Request's completion. §5.2.1. */
export const AsyncEventResult = word('AsyncEventResult', {
  type: bits(0, 3),
  info: bits(8, 8),
  logPage: bits(16, 8),
});

export const AsyncEventType = { ERROR: 0, SMART: 1, NOTICE: 2, COMMAND_SET: 6 } as const;
export const AsyncErrorInfo = {
  INVALID_DOORBELL_REGISTER: 0,
  INVALID_DOORBELL_VALUE: 1,
} as const;
export const AsyncSmartInfo = { RELIABILITY: 0, TEMPERATURE_THRESHOLD: 1, SPARE: 2 } as const;
export const AsyncCommandSetInfo = { RESERVATION_LOG: 0, SANITIZE_COMPLETED: 1 } as const;
export const AsyncNoticeInfo = { NAMESPACE_ATTRIBUTE_CHANGED: 0 } as const;
