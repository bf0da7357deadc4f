/** Results of the request layer, and the NVMe statuses that guests see for them. */
import t from 'tap';
import { protocolResult, Result } from '../../src/bdev/result.ts';
import { statusOf } from '../../src/nvme/plane/status.ts';

const DNR = 1 << 14;

/** Status code, type and Do Not Retry as NVMe Base 2.0 figures 95 to 98 have them, written down apart from the table. */
const EXPECTED: Readonly<Record<keyof typeof Result, number>> = {
  OK: 0x000,
  FAILED: 0x006,
  NO_SPACE: 0x081 | DNR,
  READ_ONLY: 0x020 | DNR,
  READ_ERROR: 0x281,
  WRITE_ERROR: 0x280,
  NOT_DURABLE: 0x280 | DNR,
  OUT_OF_RANGE: 0x080 | DNR,
  BAD_MEMORY: 0x004 | DNR,
  ABORTED: 0x007,
  QUEUE_GONE: 0x008,
  BDEV_GONE: 0x00b | DNR,
  UNSUPPORTED: 0x001 | DNR,
  NOT_READY: 0x082,
  PATH_LOST: 0x300,
  MISCOMPARE: 0x285 | DNR,
  UNCORRECTABLE: 0x281 | DNR,
};

t.test('each result has its status', async (t) => {
  for (const [name, result] of Object.entries(Result)) {
    t.equal(statusOf(result), EXPECTED[name as keyof typeof Result], name);
  }
});

t.test('a status that an operator chose stays as it is', async (t) => {
  for (const status of [0x001, 0x281, 0x3ff, 0x7fff]) {
    t.equal(statusOf(protocolResult(status)), status);
  }
});
