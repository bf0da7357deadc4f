/**
 * The controller's registers as bytes: what the host reads. Writes have effects and go through the controller. Owned by main.
 * NVMe Base 2.0 §3.1.3.
 */
import { CapHigh, CapLow, Cc, Crto, Csts, NVME_VERSION, Register } from '../spec/registers.ts';
import { readU64, writeU64 } from '../util/struct.ts';

/** Registers end here; the rest of the page reads as zeros. Bytes. */
const IMAGE_BYTES = 0x100;

/** CAP.TO and CRTO: how long enabling or disabling may take. 500 ms units. */
const READY_TIMEOUT = 60;

export class Registers {
  readonly #view = new DataView(new ArrayBuffer(IMAGE_BYTES));

  /** `maxQueueEntries`: CAP.MQES + 1. `subsystemReset`: there is NSSR. */
  constructor(maxQueueEntries: number, subsystemReset: boolean) {
    const view = this.#view;
    const cap = CapLow.encode({ mqesZ: maxQueueEntries - 1, cqr: true, to: READY_TIMEOUT });
    view.setUint32(Register.offset.cap, cap, true);
    const capHigh = CapHigh.encode({
      nssrs: subsystemReset,
      cssNvm: true,
      cssIocs: true,
      crwms: true,
    });
    view.setUint32(Register.offset.cap + 4, capHigh, true);
    view.setUint32(Register.offset.vs, NVME_VERSION, true);
    view.setUint32(Register.offset.crto, Crto.encode({ crwmt: READY_TIMEOUT }), true);
  }

  /** Copies registers out, at any offset and width; what is not a register reads as zeros. */
  read(offset: number, into: Uint8Array): void {
    const image = new Uint8Array(this.#view.buffer);
    into.set(
      image.subarray(Math.min(offset, IMAGE_BYTES), Math.min(offset + into.length, IMAGE_BYTES)),
    );
  }

  /** Back to power-on: all that the host wrote. `keepAdmin`: a controller reset leaves AQA, ASQ and ACQ (§3.7.2). */
  reset(keepAdmin: boolean): void {
    this.cc = 0;
    this.csts = 0;
    this.interruptMask = 0;
    if (!keepAdmin) {
      this.forgetAdmin();
    }
  }

  /** Where the admin queue is. */
  forgetAdmin(): void {
    this.aqa = 0;
    this.asq = 0;
    this.acq = 0;
  }

  get cc(): number {
    return this.#view.getUint32(Register.offset.cc, true);
  }
  set cc(value: number) {
    this.#view.setUint32(Register.offset.cc, value, true);
  }

  get enabled(): boolean {
    return (this.cc & Cc.mask.en) !== 0;
  }

  get csts(): number {
    return this.#view.getUint32(Register.offset.csts, true);
  }
  set csts(value: number) {
    this.#view.setUint32(Register.offset.csts, value, true);
  }

  get ready(): boolean {
    return (this.csts & Csts.mask.rdy) !== 0;
  }

  /** CSTS.SHST. */
  get shutdown(): number {
    return Csts.decode(this.csts).shst;
  }
  set shutdown(shst: number) {
    this.csts = Csts.replace(this.csts, { shst });
  }

  /** INTMS and INTMC read the same mask. */
  get interruptMask(): number {
    return this.#view.getUint32(Register.offset.intms, true);
  }
  set interruptMask(value: number) {
    this.#view.setUint32(Register.offset.intms, value, true);
    this.#view.setUint32(Register.offset.intmc, value, true);
  }

  get aqa(): number {
    return this.#view.getUint32(Register.offset.aqa, true);
  }
  set aqa(value: number) {
    this.#view.setUint32(Register.offset.aqa, value, true);
  }

  get asq(): number {
    return readU64(this.#view, Register.offset.asq);
  }
  set asq(value: number) {
    writeU64(this.#view, Register.offset.asq, value);
  }

  get acq(): number {
    return readU64(this.#view, Register.offset.acq);
  }
  set acq(value: number) {
    writeU64(this.#view, Register.offset.acq, value);
  }

  /** Sets one half of ASQ or ACQ: `offset` is that of the dword. */
  setDword(offset: number, value: number): void {
    this.#view.setUint32(offset, value, true);
  }
}
