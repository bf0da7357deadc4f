// What a driver does, from a script: connects to a controller, identifies it, writes, reads, and looks at its SMART log. With a socket it
// OVERWRITES THE BEGINNING OF THAT DISK; without one it makes a target of its own, with a RAM disk.
//
//   node examples/script.mjs [SOCKET]
import assert from 'node:assert';
import { connect, NvmeError } from 'doorbell-nvme/client';
import { startTestTarget } from 'doorbell-nvme/testing';

const test = process.argv[2] === undefined ? await startTestTarget() : undefined;
const socket = test?.socket ?? process.argv[2];

const drive = await connect(socket, { signal: AbortSignal.timeout(60_000) });
const { model, serial } = await drive.identify();
console.log(`${model}, serial number ${serial}, namespaces ${await drive.namespaces()}`);

const namespace = await drive.namespace();
console.log(`${namespace.blocks} blocks of ${namespace.blockSize} bytes`);

// More than a command moves: it becomes several.
const data = new Uint8Array(4 * 2 ** 20).map((_, i) => i % 251);
await namespace.write(0, data);
await namespace.flush();
assert.deepEqual(await namespace.read(0, data.length / namespace.blockSize), data);
console.log(`${data.length} bytes written, durable, and read again`);

try {
  await namespace.read(namespace.blocks, 1);
} catch (error) {
  assert(error instanceof NvmeError);
  console.log(`one block too far: ${error.message}`);
}

const { hostReads, hostWrites } = await drive.smart();
console.log(`commands that read: ${hostReads}; that wrote: ${hostWrites}`);
drive.close();
await test?.stop();
