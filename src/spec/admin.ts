/** Admin commands and their command dwords. Layouts only: what is supported is said by whoever carries it out. NVMe Base 2.0 §5. */
import { bits, flag, word } from '../util/bits.ts';
import { command, qword } from './command.ts';

/** Opcodes. NVMe Base 2.0 figure 138. */
export const AdminOpcode = {
  DELETE_IO_SQ: 0x00,
  CREATE_IO_SQ: 0x01,
  GET_LOG_PAGE: 0x02,
  DELETE_IO_CQ: 0x04,
  CREATE_IO_CQ: 0x05,
  IDENTIFY: 0x06,
  ABORT: 0x08,
  SET_FEATURES: 0x09,
  GET_FEATURES: 0x0a,
  ASYNC_EVENT_REQUEST: 0x0c,
  FIRMWARE_COMMIT: 0x10,
  FIRMWARE_IMAGE_DOWNLOAD: 0x11,
  DEVICE_SELF_TEST: 0x14,
  KEEP_ALIVE: 0x18,
  DOORBELL_BUFFER_CONFIG: 0x7c,
  FORMAT_NVM: 0x80,
  SANITIZE: 0x84,
} as const;

/** §5.4. PRP1: the queue, of contiguous pages where `pc`. */
export const CreateIoCq = command('CreateIoCq', AdminOpcode.CREATE_IO_CQ, {
  10: { qid: bits(0, 16), sizeZ: bits(16, 16) },
  11: { pc: flag(0), ien: flag(1), iv: bits(16, 16) },
});
/** §5.5. */
export const CreateIoSq = command('CreateIoSq', AdminOpcode.CREATE_IO_SQ, {
  10: { qid: bits(0, 16), sizeZ: bits(16, 16) },
  11: { pc: flag(0), qprio: bits(1, 2), cqid: bits(16, 16) },
  12: { nvmsetid: bits(0, 16) },
});
/** §5.6, §5.7. */
export const DeleteIoCq = command('DeleteIoCq', AdminOpcode.DELETE_IO_CQ, {
  10: { qid: bits(0, 16) },
});
export const DeleteIoSq = command('DeleteIoSq', AdminOpcode.DELETE_IO_SQ, {
  10: { qid: bits(0, 16) },
});

/** §5.1. */
export const Abort = command('Abort', AdminOpcode.ABORT, {
  10: { sqid: bits(0, 16), cid: bits(16, 16) },
});
/** Dword 0 of its completion. */
export const AbortResult = word('AbortResult', { notAborted: flag(0) });

/** §5.2. */
export const AsyncEventRequest = command('AsyncEventRequest', AdminOpcode.ASYNC_EVENT_REQUEST, {});

/** §5.16. `numdLZ` and `numdU`: dwords, in two parts. `lpo`: bytes, or an index where `ot`. */
export const GetLogPage = command('GetLogPage', AdminOpcode.GET_LOG_PAGE, {
  10: { lid: bits(0, 8), lsp: bits(8, 7), rae: flag(15), numdLZ: bits(16, 16) },
  11: { numdU: bits(0, 16), lsi: bits(16, 16) },
  12: { lpo: qword },
  14: { uuid: bits(0, 7), ot: flag(23), csi: bits(24, 8) },
});

/** §5.15, §5.27. Dword 11 is the feature's own: see `features.ts`. */
export const GetFeatures = command('GetFeatures', AdminOpcode.GET_FEATURES, {
  10: { fid: bits(0, 8), sel: bits(8, 3) },
  11: { value: bits(0, 32) },
  14: { uuid: bits(0, 7) },
});
export const SetFeatures = command('SetFeatures', AdminOpcode.SET_FEATURES, {
  10: { fid: bits(0, 8), sv: flag(31) },
  11: { value: bits(0, 32) },
  14: { uuid: bits(0, 7) },
});

/** §5.12. `ca`: the commit action. */
export const FirmwareCommit = command('FirmwareCommit', AdminOpcode.FIRMWARE_COMMIT, {
  10: { fs: bits(0, 3), ca: bits(3, 3), bpid: flag(31) },
});
export const CommitAction = {
  REPLACE: 0,
  REPLACE_AND_ACTIVATE: 1,
  ACTIVATE: 2,
  ACTIVATE_NOW: 3,
} as const;
/** §5.13. Dwords, of the image. */
export const FirmwareImageDownload = command(
  'FirmwareImageDownload',
  AdminOpcode.FIRMWARE_IMAGE_DOWNLOAD,
  { 10: { numdZ: bits(0, 32) }, 11: { ofst: bits(0, 32) } },
);

/** §5.17. */
export const Identify = command('Identify', AdminOpcode.IDENTIFY, {
  10: { cns: bits(0, 8), cntid: bits(16, 16) },
  11: { cnssid: bits(0, 16), csi: bits(24, 8) },
  14: { uuid: bits(0, 7) },
});

/** CNS: what to identify. NVMe Base 2.0 figure 273. */
export const Cns = {
  NAMESPACE: 0x00,
  CONTROLLER: 0x01,
  ACTIVE_NAMESPACES: 0x02,
  NAMESPACE_DESCRIPTORS: 0x03,
  CSI_NAMESPACE: 0x05,
  CSI_CONTROLLER: 0x06,
  CSI_ACTIVE_NAMESPACES: 0x07,
  INDEPENDENT_NAMESPACE: 0x08,
  ALLOCATED_NAMESPACES: 0x10,
  ALLOCATED_NAMESPACE: 0x11,
  NAMESPACE_CONTROLLERS: 0x12,
  CONTROLLERS: 0x13,
  IO_COMMAND_SETS: 0x1c,
} as const;

/** Command set identifiers. */
export const Csi = { NVM: 0 } as const;

/** §5.9. */
export const DeviceSelfTest = command('DeviceSelfTest', AdminOpcode.DEVICE_SELF_TEST, {
  10: { stc: bits(0, 4) },
});
/** STC: what is tested. */
export const SelfTestCode = { NONE: 0, SHORT: 1, EXTENDED: 2, ABORT: 15 } as const;

/** §5.18. */
export const KeepAlive = command('KeepAlive', AdminOpcode.KEEP_ALIVE, {});

/** §5.14. `lbafL`, `lbafU`: the LBA format, in two parts; `ses`: secure erase. */
export const FormatNvm = command('FormatNvm', AdminOpcode.FORMAT_NVM, {
  10: {
    lbafL: bits(0, 4),
    mset: flag(4),
    pi: bits(5, 3),
    pil: flag(8),
    ses: bits(9, 3),
    lbafU: bits(12, 2),
  },
});
export const SecureErase = { NONE: 0, USER_DATA: 1, CRYPTOGRAPHIC: 2 } as const;

/** §5.24. `owpass`: passes, 0 means 16; `oipbp`: each with the pattern inverted; `ndas`: nothing is deallocated after it. */
export const Sanitize = command('Sanitize', AdminOpcode.SANITIZE, {
  10: { sanact: bits(0, 3), ause: flag(3), owpass: bits(4, 4), oipbp: flag(8), ndas: flag(9) },
  11: { ovrpat: bits(0, 32) },
});
export const SanitizeAction = {
  EXIT_FAILURE: 1,
  BLOCK_ERASE: 2,
  OVERWRITE: 3,
  CRYPTO_ERASE: 4,
} as const;

/** §5.8. PRP1: shadow doorbells, PRP2: event indexes; a page each. */
export const DoorbellBufferConfig = command(
  'DoorbellBufferConfig',
  AdminOpcode.DOORBELL_BUFFER_CONFIG,
  {},
);
