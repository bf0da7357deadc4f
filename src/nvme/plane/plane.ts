/** NVMe in a reactor: the I/O queues of controllers, and the watch over their admin doorbells. See `reactor/plane.ts` for who calls what. */
import type { RequestQueue } from '../../bdev/requests/owner.ts';
import type { PlaneMessage } from '../../reactor/control.ts';
import type { Plane, PlaneParts } from '../../reactor/plane.ts';
import { AdminWatches } from './admin-watch.ts';
import { Controllers, listenData } from './controllers.ts';
import { IoEngine } from './engine.ts';
import type { NvmeEvent, NvmeRequest } from './messages.ts';
import { PageWatches } from './page-watch.ts';
import { Publisher } from './publisher.ts';
import { type Turn, Turns } from './turns.ts';
import { IoQueue } from './view.ts';

/** Polls on clients' sockets that are armed at a time. */
const MAX_LISTENING = 1024;

export class NvmePlane implements Plane {
  readonly #parts: PlaneParts;
  readonly #publisher: Publisher;
  readonly #controllers: Controllers;
  readonly #turns: Turns;
  readonly #watches: AdminWatches;
  readonly #pages: PageWatches;
  /** One for each controller with queues to be polled. */
  #polled: Turn[] = [];
  #leaving = false;
  unheard = false;

  constructor(parts: PlaneParts) {
    this.#parts = parts;
    this.#publisher = new Publisher(parts.requests.clock, (cq) => {
      cq.signalled();
      if (cq.eventfd >= 0) {
        parts.context.system.eventfdSignal(cq.eventfd);
      }
      parts.interrupted();
    });
    const engine = new IoEngine(parts.context, parts.requests, this.#publisher);
    this.#controllers = new Controllers(parts, engine);
    this.#turns = new Turns(engine, this.#publisher, (controller, qid) =>
      this.#tell({ kind: 'bad-doorbell', controller, qid }),
    );
    this.#watches = new AdminWatches((controller) => this.#tell({ kind: 'admin', controller }));
    this.#pages = new PageWatches((controller) => this.#tell({ kind: 'rung', controller }));
  }

  #tell(event: NvmeEvent): void {
    this.#parts.tell(event);
  }

  handle(id: number, message: PlaneMessage): void {
    const request = message as NvmeRequest;
    const { kind, controller } = request;
    this.#controllers.handle(id, request);
    if (request.kind === 'watch-page' || kind === 'detach') {
      this.#pages.remove(controller);
      if (request.kind === 'watch-page' && request.enabled) {
        this.#pages.add(controller, request.page, request.seen);
      }
    }
    if (kind === 'watch-admin' || kind === 'detach') {
      this.#watches.remove(controller);
      const state = this.#controllers.get(controller);
      if (request.kind === 'watch-admin' && request.enabled && state !== undefined) {
        this.#watches.add(controller, state.doorbells, request.seen);
      }
    }
    this.#choosePolled();
  }

  #choosePolled(): void {
    const before = new Map(this.#polled.map((turn) => [turn.queues[0]?.controller, turn.first]));
    this.#polled = [];
    this.#leaving = false;
    this.unheard = this.#watches.any || this.#pages.any;
    for (const { io, queues, trapped } of this.#controllers.all()) {
      const polled = queues.polled();
      if (polled.length > 0) {
        this.#polled.push({ queues: polled, first: (before.get(io) ?? 0) % polled.length });
      }
      this.#leaving ||= queues.leaving;
      this.unheard ||= !trapped && queues.used;
    }
  }

  poll(): number {
    const polled = this.#polled;
    let taken = 0;
    for (let i = 0; i < polled.length; i++) {
      taken += this.#turns.take(polled[i]);
    }
    return taken;
  }

  publish(): void {
    this.#publisher.publishTouched();
  }

  settle(): void {
    if (!this.#leaving) {
      return;
    }
    let gone = false;
    for (const { queues } of this.#controllers.all()) {
      for (const id of queues.handOver()) {
        gone = true;
        this.#parts.answer(id, 0);
      }
    }
    if (gone) {
      this.#choosePolled();
    }
  }

  get due(): number {
    return this.#publisher.due;
  }

  signal(late: boolean): number {
    return this.#publisher.signal(late);
  }

  watch(): number {
    return this.#watches.look() + this.#pages.look();
  }

  /**
   * Hosts with shadow doorbells are to ring. That comes as a message, and so by way of main; the reactor listens to the socket as well, and
   * has found the command in the shadow page by the time main has read the message.
   */
  arm(): void {
    for (const { queues } of this.#polled) {
      for (const { sq } of queues) {
        sq.arm();
      }
    }
    const { ring } = this.#parts.context;
    for (const state of this.#controllers.all()) {
      const rings = state.queues.shadowed && state.queues.used && state.socket >= 0;
      if (rings && !state.listening && ring.prepared < MAX_LISTENING) {
        state.listening = true;
        ring.preparePollOnce(state.socket, listenData(state.io.id));
      }
    }
  }

  hush(): void {
    for (const { queues } of this.#polled) {
      for (const { sq } of queues) {
        sq.hushNow();
      }
    }
  }

  heard(userData: number): void {
    // It is its own inverse.
    const state = this.#controllers.get(listenData(userData));
    if (state !== undefined) {
      state.listening = false;
    }
  }

  report(): void {
    for (const { queues } of this.#controllers.all()) {
      queues.report();
    }
    for (const queue of this.#parts.requests.queues()) {
      this.#reportInflight(queue);
    }
  }

  #reportInflight(queue: RequestQueue): void {
    if (queue instanceof IoQueue) {
      this.#controllers.get(queue.controller.id)?.queues.reportInflight(queue.sq);
    }
  }
}
