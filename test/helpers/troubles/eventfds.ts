/** Eventfds that a VMM has spoilt: a signal would wait, or never ends. */
import { closeSync } from 'node:fs';
import { NvmOpcode } from '../../../src/spec/nvm.ts';
import { IrqSetAction, IrqSetData, PciIrq, PciRegion } from '../../../src/spec/vfio-user.ts';
import { Descriptors, noPython } from '../descriptors.ts';
import type { Trouble } from '../neighbour/trouble.ts';
import { createPair } from '../queues.ts';
import { sharedBuffer, submit } from './guest.ts';

/** The largest value that an eventfd counts to; one more makes a write wait. eventfd(2). */
const FULL = 0xffff_ffff_ffff_fffen;
const DEPTH = 64;

/** `vector` 0 is the admin queue's, which main signals; the others are signalled by reactors. */
function blocking(vector: 0 | 1): Trouble {
  return {
    name: `the eventfd of ${vector === 0 ? 'an admin' : 'an I/O'} queue blocks`,
    needs: noPython,
    async establish(scene) {
      const client = await scene.connect(await scene.serve(await scene.malloc()));
      const descriptors = await Descriptors.start({ teardown: (fn) => scene.defer(fn) });
      const fd = await descriptors.make('eventfd');
      await client.vfio.connectIrqs(PciIrq.MSIX, vector, [fd]);
      closeSync(fd);
      const pair = await createPair(client, { qid: 1, depth: DEPTH, vector });
      sharedBuffer(client, pair, DEPTH - 1);
      // The kernel's answer to a signal was read, or not: what it counted is taken first.
      await descriptors.change('fill 1');
      await descriptors.change('drain');
      await descriptors.change(`fill ${FULL}`);
      await descriptors.change('block');
      return {
        held: async () => {
          pair.poll();
          submit(pair, NvmOpcode.READ, 1, Math.min(8, DEPTH - 1 - pair.inflight));
          if (vector === 0) {
            void client.identifyController().catch(() => {});
          }
        },
        release: () => descriptors.change('drain'),
      };
    },
  };
}

const semaphore: Trouble = {
  name: 'the eventfd that unmasks INTx never runs out',
  needs: noPython,
  async establish(scene) {
    const client = await scene.connect(await scene.serve(await scene.malloc()));
    const descriptors = await Descriptors.start({ teardown: (fn) => scene.defer(fn) });
    const fd = await descriptors.make('semaphore');
    await descriptors.change(`fill ${FULL}`);
    await client.vfio.setIrqs(PciIrq.INTX, IrqSetData.EVENTFD | IrqSetAction.UNMASK, 0, 1, [fd]);
    closeSync(fd);
    return {
      held: async () => {
        await client.vfio.regionRead(PciRegion.CONFIG, 0, 4);
      },
      release: async () => {},
    };
  },
};

export const EVENTFD_TROUBLES: readonly Trouble[] = [blocking(1), blocking(0), semaphore];
