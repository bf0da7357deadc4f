/** VMMs that come and go, say half of something, or do not listen. */
import { closeSync } from 'node:fs';
import { native } from '../../../src/native/index.ts';
import { DeviceInfo, VersionPayload, VfioUserCommand } from '../../../src/spec/vfio-user.ts';
import { encodeCommand } from '../../../src/vfio-user/codec.ts';
import type { Trouble } from '../neighbour/trouble.ts';

const version = encodeCommand(0, VfioUserCommand.VERSION, VersionPayload.encode({ minor: 1 }));
const info = encodeCommand(
  1,
  VfioUserCommand.DEVICE_GET_INFO,
  DeviceInfo.encode({ argsz: DeviceInfo.size }),
);

const comingAndGoing: Trouble = {
  name: 'clients connect and hang up without end',
  async establish(scene) {
    const served = await scene.serve(await scene.malloc());
    const held = async (): Promise<void> => {
      for (let i = 0; i < 20; i++) {
        const socket = scene.dial(served);
        native.socketSend(socket, i % 2 === 0 ? version : version.subarray(0, 9), []);
        closeSync(socket);
      }
      await new Promise((resolve) => setImmediate(resolve));
    };
    await held();
    return { held, release: async () => {} };
  },
};

const halfMessages: Trouble = {
  name: 'clients stop in the middle of a message',
  async establish(scene) {
    for (const part of [0, 1, 15, 16, version.length - 1]) {
      for (const before of [Buffer.alloc(0), version]) {
        const socket = scene.dial(await scene.serve(await scene.malloc()));
        scene.defer(() => closeSync(socket));
        const half = before.length === 0 ? version.subarray(0, part) : info.subarray(0, part);
        const [one, other] = native.socketPair();
        const bytes = Buffer.concat([before, half]);
        if (bytes.length > 0) {
          native.socketSend(socket, bytes, [one, other]);
        }
        closeSync(one);
        closeSync(other);
      }
    }
    return { held: async () => {}, release: async () => {} };
  },
};

const deaf: Trouble = {
  name: 'a client that asks without end and reads no answer',
  async establish(scene) {
    const socket = scene.dial(await scene.serve(await scene.malloc()));
    scene.defer(() => closeSync(socket));
    native.socketSend(socket, version, []);
    const many = Buffer.concat(Array(64).fill(info));
    let rest = many;
    const held = async (): Promise<void> => {
      // Until its own socket is full: the target reads no more of somebody who does not read.
      for (let i = 0; i < 100; i++) {
        const sent = native.socketSend(socket, rest, []);
        if (sent < 0) {
          return;
        }
        rest = sent === rest.length ? many : rest.subarray(sent);
      }
    };
    await held();
    return { held, release: async () => {} };
  },
};

export const SOCKET_TROUBLES: readonly Trouble[] = [comingAndGoing, halfMessages, deaf];
