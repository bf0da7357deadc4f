/**
 * The telemetry logs. What the host has gathered is one JSON document: registers, queues, features, interrupts and what an operator would be
 * told of the controller, no data and nothing of other guests. The controller gathers nothing by itself. NVMe Base 2.0 §5.16.1.8, §5.16.1.9.
 * Owned by main.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Lid, TELEMETRY_BLOCK, TelemetryLog } from '../../spec/logs.ts';
import { IEEE } from '../identify.ts';

/** Data area 1 alone is used. Blocks. */
const MAX_BLOCKS = 512;
/** Between two times that data is gathered. Milliseconds. */
const GATHER_MS = 1000;

export class Telemetry {
  readonly #describe: () => Promise<unknown>;
  #blocks = new Uint8Array(0);
  #generation = 0;
  /** When data was gathered last. Milliseconds. */
  #gathered = Number.NEGATIVE_INFINITY;
  #gathering: Promise<void> | undefined;

  constructor(describe: () => Promise<unknown>) {
    this.#describe = describe;
  }

  /**
   * Gathers data anew, which stays until the next time: once a second at most, since reactors are asked and a guest can ask as often as it
   * likes. Who asks meanwhile waits, and shares what comes.
   */
  gather(): Promise<void> {
    this.#gathering ??= this.#gatherNext().finally(() => {
      this.#gathering = undefined;
    });
    return this.#gathering;
  }

  async #gatherNext(): Promise<void> {
    const wait = this.#gathered + GATHER_MS - performance.now();
    if (wait > 0) {
      await sleep(wait, undefined, { ref: false });
    }
    this.#gathered = performance.now();
    const text = Buffer.from(JSON.stringify(await this.#describe()), 'utf8');
    const length = Math.ceil(text.length / TELEMETRY_BLOCK) * TELEMETRY_BLOCK;
    this.#blocks = new Uint8Array(Math.min(length, MAX_BLOCKS * TELEMETRY_BLOCK));
    this.#blocks.set(text.subarray(0, this.#blocks.length));
    this.#generation = (this.#generation + 1) & 0xff;
  }

  /** LID 07h. */
  hostPage(): Uint8Array {
    const last = this.#blocks.length / TELEMETRY_BLOCK;
    const head = TelemetryLog.encode({
      lid: Lid.TELEMETRY_HOST,
      ieee: IEEE,
      last1: last,
      last2: last,
      last3: last,
      hostGeneration: this.#generation,
    });
    return Buffer.concat([head, this.#blocks]);
  }

  /** LID 08h: never any data. */
  controllerPage(): Uint8Array {
    return TelemetryLog.encode({ lid: Lid.TELEMETRY_CONTROLLER, ieee: IEEE });
  }
}
