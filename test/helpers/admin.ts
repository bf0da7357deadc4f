/** Admin commands in a few words, and statuses as the specification writes them. */
import type { CommandFields, NvmeClient } from '../../src/client/nvme.ts';
import type { Completion } from '../../src/client/queue-pair.ts';
import { GetFeatures, GetLogPage, Identify, SetFeatures } from '../../src/spec/admin.ts';
import { StatusField } from '../../src/spec/nvme.ts';

/** Status code type and status code in hexadecimal, as '1/0c': NVMe Base 2.0 figures 95 to 98. */
export function code({ status }: Pick<Completion, 'status'>): string {
  const { sct, sc } = StatusField.decode(status);
  return `${sct}/${sc.toString(16).padStart(2, '0')}`;
}

/** The host is told not to try again. */
export const doNotRetry = ({ status }: Completion): boolean => StatusField.decode(status).dnr;

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
    return this.call({ ...Identify.fields({ nsid, cns }), ...rest });
  }

  /** `bytes`: a multiple of 4. */
  log(lid: number, bytes: number, rest: CommandFields = {}): Promise<Answer> {
    const fields = GetLogPage.fields({ lid, numdLZ: bytes / 4 - 1 });
    return this.call({ ...fields, ...rest }, Math.min(bytes, 8192));
  }

  getFeature(fid: number, select = 0, cdw11 = 0): Promise<Answer> {
    return this.call(GetFeatures.fields({ fid, sel: select, value: cdw11 }));
  }

  setFeature(fid: number, cdw11: number, save = false): Promise<Answer> {
    return this.call(SetFeatures.fields({ fid, sv: save, value: cdw11 >>> 0 }));
  }
}
