// The command line of a back-end program, as QEMU's documentation asks of vhost-user ones:
//
//   --socket-path=PATH     listens there
//   --fd=NUMBER            serves on a socket that it inherits, listening or connected
//   --print-capabilities   prints what it is as JSON, and ends
//   --specified-dma        clients lay out DMA messages as the protocol says: the first of them is no probe
import { parseArgs } from 'node:util';
import { serve } from 'doorbell-nvme/vfio-user';

const USAGE = 'either --socket-path=PATH or --fd=NUMBER, or --print-capabilities';

/**
 * Serves until SIGTERM or SIGINT, or until the one client of a connected socket is gone.
 *
 * @param {string} type what `--print-capabilities` calls it
 * @param {Omit<import('doorbell-nvme/vfio-user').ServeOptions, 'path' | 'fd'>} options
 */
export function runBackend(type, options) {
  const { values } = parseArgs({
    options: {
      'socket-path': { type: 'string' },
      fd: { type: 'string' },
      'print-capabilities': { type: 'boolean' },
      'specified-dma': { type: 'boolean' },
    },
  });
  if (values['print-capabilities']) {
    console.log(JSON.stringify({ type, features: [] }));
    return;
  }
  const { 'socket-path': path, fd } = values;
  if ((path === undefined) === (fd === undefined) || (fd !== undefined && !/^\d+$/.test(fd))) {
    console.error(USAGE);
    process.exitCode = 1;
    return;
  }
  const server = serve({
    ...options,
    ...(path === undefined ? { fd: Number(fd) } : { path }),
    ...(values['specified-dma'] && { dmaLayout: 'specified' }),
    onExhausted: () => server.close(),
  });
  const stop = async () => {
    await server.close();
    process.exit();
  };
  process.once('SIGTERM', stop);
  process.once('SIGINT', stop);
  console.log(`${type}: VMMs connect to ${server.path}`);
}
