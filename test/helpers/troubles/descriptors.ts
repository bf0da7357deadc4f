/** Descriptors that are sent to a target and whose close waits or fails. */
import { close, closeSync, openSync } from 'node:fs';
import type { VfioClient } from '../../../src/client/vfio.ts';
import { native } from '../../../src/native/index.ts';
import {
  DeviceInfo,
  IrqSet,
  IrqSetAction,
  IrqSetData,
  PciIrq,
  VfioUserCommand,
} from '../../../src/spec/vfio-user.ts';
import { Descriptors, noPython } from '../descriptors.ts';
import { noFuse } from '../fuse.ts';
import type { Trouble } from '../neighbour/trouble.ts';

const EIO = 5;
const IOVA = 0x200_0000_0000;
const INFO = DeviceInfo.encode({ argsz: DeviceInfo.size });
const UNMASK = IrqSetData.EVENTFD | IrqSetAction.UNMASK;
const NO_INDEX = IrqSet.encode({
  argsz: IrqSet.size,
  flags: UNMASK,
  index: 77,
  start: 0,
  count: 1,
});

/** Ways in which a descriptor comes to a target that has no use for it. Replies and refusals are of no interest. */
const WAYS: readonly ((vfio: VfioClient, fd: number) => Promise<unknown>)[] = [
  // With a message that takes none; more than it takes.
  (vfio, fd) => vfio.request(VfioUserCommand.DEVICE_GET_INFO, INFO, [fd]),
  (vfio, fd) => vfio.request(VfioUserCommand.DEVICE_GET_INFO, INFO, [fd, fd, fd, fd]),
  // Of the wrong kind.
  (vfio, fd) => vfio.connectIrqs(PciIrq.MSIX, 0, [fd, fd]),
  (vfio, fd) => vfio.setIrqs(PciIrq.INTX, UNMASK, 0, 1, [fd]),
  // For an index that there is not.
  (vfio, fd) => vfio.request(VfioUserCommand.DEVICE_SET_IRQS, NO_INDEX, [fd]),
  // As memory that cannot be, or is taken back, or stays until the client goes.
  (vfio, fd) => vfio.dmaMap({ iova: IOVA, size: 0x1000, fd, offset: 0x1000_0000_0000 }),
  (vfio, fd) =>
    vfio.dmaMap({ iova: IOVA, size: 0x1000, fd }).then(() => vfio.dmaUnmap(IOVA, 0x1000)),
  (vfio, fd) => vfio.dmaMap({ iova: IOVA + 0x10_0000, size: 0x1000, fd }),
];

async function sendEverywhere(vfio: VfioClient, fd: number): Promise<void> {
  for (const way of WAYS) {
    await way(vfio, fd).catch(() => {});
  }
}

function fuseDescriptors(
  name: string,
  behaviour: { hold?: readonly ['close']; close?: number },
): Trouble {
  return {
    name: `descriptors whose close ${name}`,
    needs: noFuse,
    async establish(scene) {
      const fuse = await scene.fuse({ cached: true });
      const vfio = await scene.vmm(await scene.serve(await scene.malloc()));
      await fuse.behave({ ...behaviour, spare: process.pid });
      const fd = openSync(fuse.path, 'r+');
      try {
        await sendEverywhere(vfio, fd);
      } finally {
        closeSync(fd);
      }
      if (behaviour.hold !== undefined) {
        await fuse.held(1);
      }
      return { held: async () => {}, release: () => fuse.behave({}) };
    },
  };
}

/** On another thread. */
const closeAside = (fd: number): void => close(fd, () => {});

/** A socket that lingers waits at the close of its last descriptor, also of one that lies in the queue of another socket. */
const lingering: Trouble = {
  name: 'sockets that linger, and sockets with descriptors in their queue',
  needs: noPython,
  async establish(scene) {
    const descriptors = await Descriptors.start({ teardown: (fn) => scene.defer(fn) });
    const served = await scene.serve(await scene.malloc());
    const vfio = await scene.vmm(served);
    for (const way of WAYS) {
      for (const queued of [false, true]) {
        let fd = await descriptors.make('linger');
        if (queued) {
          const [near, far] = native.socketPair();
          native.socketSend(near, Buffer.from('x'), [fd]);
          closeAside(fd);
          closeAside(near);
          fd = far;
        }
        const sent = way(vfio, fd).catch(() => {});
        // The last close is to be the target's, and waits here if it is not.
        closeAside(fd);
        await sent;
      }
    }
    return { held: async () => {}, release: () => descriptors.change('rest') };
  },
};

/** Descriptors that a target has not even received when it closes the socket. */
const unreceived: Trouble = {
  name: 'a client ends with descriptors in its socket whose close hangs',
  needs: noFuse,
  async establish(scene) {
    const fuse = await scene.fuse({ cached: true });
    const served = await scene.serve(await scene.malloc());
    await fuse.behave({ hold: ['close'], spare: process.pid });
    const fd = openSync(fuse.path, 'r+');
    let refused = false;
    const one = async (): Promise<void> => {
      let socket: number;
      try {
        socket = scene.dial(served);
      } catch {
        // With so many of its descriptors to close the target lets nobody in at this socket.
        refused = true;
        return;
      }
      // No message at all: the target hangs up at the first bytes, and finds more behind them.
      for (let i = 0; i < 4; i++) {
        try {
          native.socketSend(socket, Buffer.alloc(64, 0xff), Array(16).fill(fd));
        } catch {
          // It has hung up.
        }
      }
      closeSync(socket);
      await new Promise((resolve) => setTimeout(resolve, 5));
    };
    await one();
    return {
      held: async () => {
        if (!refused) {
          await one();
        }
      },
      release: async () => {
        closeSync(fd);
        await fuse.behave({});
      },
    };
  },
};

export const DESCRIPTOR_TROUBLES: readonly Trouble[] = [
  fuseDescriptors('fails', { close: EIO }),
  fuseDescriptors('hangs', { hold: ['close'] }),
  lingering,
  unreceived,
];
