/** Admin commands in a few words, and statuses as the specification writes them. */
import type { CommandFields, NvmeClient } from '../../src/client/nvme.ts';
import type { Completion } from '../../src/client/queue-pair.ts';
import { AdminOpcode } from '../../src/spec/nvme.ts';

/** Status code type and status code in hexadecimal, as '1/0c': NVMe Base 2.0 figures 95 to 98. */
export function code({ status }: Pick<Completion, 'status'>): string {
  return `${(status >>> 8) & 7}/${(status & 0xff).toString(16).padStart(2, '0')}`;
}

/** The host is told not to try again. */
export const doNotRetry = ({ status }: Completion): boolean => (status & 0x4000) !== 0;

/** What an admin command answers, with a buffer of `bytes` of its own (at most two pages). */
export interface Answer {
  readonly code: string;
  readonly dw0: number;
  readonly data: Uint8Array;
}

export class AdminCaller {
  readonly #client: NvmeClient;
  readonly #offset: number;

  constructor(client: NvmeClient) {
    this.#client = client;
    this.#offset = client.memory.allocate(3 * 4096);
  }

  /** IOVA of the buffer. */
  get buffer(): number {
    return this.#client.memory.iova + this.#offset;
  }

  async call(fields: CommandFields, bytes = 4096): Promise<Answer> {
    const { memory } = this.#client;
    const data = memory.bytes(this.#offset, bytes).fill(0xa5);
    const prp1 = this.buffer;
    const completion = await this.#client.admin.execute({ prp1, prp2: prp1 + 4096, ...fields });
    return { code: code(completion), dw0: completion.dw0, data: data.slice() };
  }

  identify(cns: number, nsid = 0, rest: CommandFields = {}): Promise<Answer> {
    return this.call({ opcode: AdminOpcode.IDENTIFY, nsid, cdw10: cns, ...rest });
  }

  /** `bytes`: a multiple of 4. */
  log(lid: number, bytes: number, rest: CommandFields = {}): Promise<Answer> {
    const dwords = bytes / 4 - 1;
    const cdw10 = (lid | (dwords << 16)) >>> 0;
    return this.call({ opcode: AdminOpcode.GET_LOG_PAGE, cdw10, ...rest }, Math.min(bytes, 8192));
  }

  getFeature(fid: number, select = 0, cdw11 = 0): Promise<Answer> {
    return this.call({ opcode: AdminOpcode.GET_FEATURES, cdw10: fid | (select << 8), cdw11 });
  }

  setFeature(fid: number, cdw11: number, save = false): Promise<Answer> {
    const cdw10 = (fid | (save ? 1 << 31 : 0)) >>> 0;
    return this.call({ opcode: AdminOpcode.SET_FEATURES, cdw10, cdw11 });
  }
}
