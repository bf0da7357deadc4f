/** `doorbell rpc`: one call of a JSON-RPC method. */
import { type Command, Option } from 'commander';
import { integer, rpcSocketOption } from '../options.ts';

/** Adds `rpc` to the program. */
export function addRpc(program: Command): void {
  program
    .command('rpc')
    .description('Call a JSON-RPC method of a running target, and print the result.')
    .argument('<method>', 'for example rpc_get_methods')
    .argument('[params]', 'a JSON object, or - to read it from stdin')
    .addOption(rpcSocketOption('-s, --socket'))
    .addOption(
      new Option('-t, --timeout <seconds>', 'how long to wait for the answer')
        .argParser(integer(1, 86_400))
        .default(60),
    )
    .addHelpText(
      'after',
      `
Examples:
  doorbell rpc bdev_get_bdevs
  doorbell rpc bdev_malloc_create '{"num_blocks": 131072, "block_size": 512, "name": "Malloc0"}'
  doorbell rpc nvmf_get_subsystems -s /var/tmp/spdk.sock`,
    )
    .action(
      async (
        method: string,
        params: string | undefined,
        { socket, timeout }: { socket: string; timeout: number },
      ) => {
        const { runRpc } = await import('../rpc.ts');
        process.exitCode = await runRpc(method, params, { socket, timeoutMs: timeout * 1000 });
      },
    );
}
