/** A host with an identifier of its own, and reservation commands in a few words. */
import type { NvmeClient } from '../../src/client/nvme.ts';
import type { QueuePair } from '../../src/client/queue-pair.ts';
import { AsyncEventRequest, SetFeatures } from '../../src/spec/admin.ts';
import type { CommandFields } from '../../src/spec/command.ts';
import { Fid, HostIdentifier } from '../../src/spec/features.ts';
import { Lid } from '../../src/spec/logs.ts';
import {
  Compare,
  DatasetManagement,
  Flush,
  Read,
  Verify,
  Write,
  WriteZeroes,
} from '../../src/spec/nvm.ts';
import {
  EXTENDED_STATUS_BYTES,
  RegisteredControllerExtended,
  ReservationAcquire,
  ReservationLog,
  ReservationRegister,
  ReservationRelease,
  ReservationReport,
  ReservationStatus,
} from '../../src/spec/reservations.ts';
import { code } from './admin.ts';

const PAGE = 4096;

export class ReservingHost {
  readonly client: NvmeClient;
  readonly pair: QueuePair;
  readonly id: number;
  /** Page 0: the data of reservation commands; page 1: that of others. */
  readonly #offset: number;

  /** `id`: the first byte of the host identifier. */
  static async of(client: NvmeClient, id: number): Promise<ReservingHost> {
    const host = new ReservingHost(client, await client.createQueuePair(1, 64), id);
    await host.identify();
    return host;
  }

  private constructor(client: NvmeClient, pair: QueuePair, id: number) {
    this.client = client;
    this.pair = pair;
    this.id = id;
    this.#offset = client.memory.allocate(2 * PAGE);
  }

  get #prp1(): number {
    return this.client.memory.iova + this.#offset;
  }

  /** Tells the controller the identifier, of 16 bytes. */
  async identify(): Promise<string> {
    const data = this.client.memory.bytes(this.#offset, 16).fill(0);
    data[0] = this.id;
    const value = HostIdentifier.encode({ exhid: true });
    const fields = SetFeatures.fields({ fid: Fid.HOST_IDENTIFIER, value, prp1: this.#prp1 });
    return code(await this.client.admin.execute(fields));
  }

  #keys(current: number, other: number): void {
    const bytes = this.client.memory.bytes(this.#offset, 16);
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    view.setBigUint64(0, BigInt(current), true);
    view.setBigUint64(8, BigInt(other), true);
  }

  async run(fields: CommandFields): Promise<string> {
    return code(await this.pair.execute(fields));
  }

  register(rrega: number, current: number, key: number, rest = {}, nsid = 1): Promise<string> {
    this.#keys(current, key);
    return this.run(ReservationRegister.fields({ nsid, rrega, prp1: this.#prp1, ...rest }));
  }

  acquire(racqa: number, rtype: number, current: number, other = 0, rest = {}): Promise<string> {
    this.#keys(current, other);
    return this.run(
      ReservationAcquire.fields({ nsid: 1, racqa, rtype, prp1: this.#prp1, ...rest }),
    );
  }

  release(rrela: number, rtype: number, current: number, rest = {}): Promise<string> {
    this.#keys(current, 0);
    return this.run(
      ReservationRelease.fields({ nsid: 1, rrela, rtype, prp1: this.#prp1, ...rest }),
    );
  }

  /** In the extended format. */
  async report() {
    const numdZ = PAGE / 4 - 1;
    const bytes = this.client.memory.bytes(this.#offset, PAGE).fill(0xa5);
    const status = await this.run(
      ReservationReport.fields({ nsid: 1, numdZ, eds: true, prp1: this.#prp1 }),
    );
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const { gen, rtype, regctl, ptpls } = ReservationStatus.read(view);
    const registrants = Array.from({ length: Math.min(regctl, 60) }, (_, i) => {
      const at = EXTENDED_STATUS_BYTES + i * RegisteredControllerExtended.size;
      const { rcsts, rkey, hostid } = RegisteredControllerExtended.read(view, at);
      return { id: hostid[0], key: rkey[0], holds: rcsts === 1 };
    });
    return { status, gen, rtype, ptpls, registrants };
  }

  /** The statuses of the commands that read, and that write, each once if they are all the same. */
  async access(): Promise<{ reads: string; writes: string }> {
    const prp1 = this.#prp1 + PAGE;
    this.client.memory.bytes(this.#offset + PAGE, PAGE).fill(0);
    const range = { nsid: 1, slba: 0, nlbZ: 0 };
    const all = async (commands: readonly CommandFields[]): Promise<string> => {
      const codes: string[] = [];
      for (const command of commands) {
        codes.push(await this.run(command));
      }
      return [...new Set(codes)].join();
    };
    const writes = [
      WriteZeroes.fields(range),
      DatasetManagement.fields({ nsid: 1, nrZ: 0, ad: true, prp1 }),
      Flush.fields({ nsid: 1 }),
      Write.fields({ ...range, prp1 }),
    ];
    const reads = [
      Read.fields({ ...range, prp1 }),
      Compare.fields({ ...range, prp1 }),
      Verify.fields(range),
    ];
    return { reads: await all(reads), writes: await all(writes) };
  }

  /** The next event, and the oldest notice with it. */
  async notice(): Promise<{ type: number; left: number; nsid: number }> {
    await this.client.admin.execute(AsyncEventRequest.fields());
    return this.readNotice();
  }

  async readNotice() {
    const lid = Lid.RESERVATION;
    const cdw10 = lid | ((ReservationLog.size / 4 - 1) << 16);
    const data = await this.client.adminRead({ opcode: 2, cdw10 }, ReservationLog.size);
    const { type, nalp, nsid } = ReservationLog.read(new DataView(data.buffer));
    return { type, left: nalp, nsid };
  }
}
