/** `doorbell rpc`: calls of JSON-RPC methods. */
import { type Command, Option } from 'commander';
import { integer, rpcSocketOption } from '../options.ts';
import type { RpcFlags } from '../rpc/run.ts';

/** Adds `rpc` to the program. */
export function addRpc(program: Command): void {
  program
    .command('rpc')
    .description('Call a JSON-RPC method of a running target, and print the result as JSON.')
    .argument('[method]', 'for example bdev_get_bdevs')
    .argument(
      '[params...]',
      'key=value words (a.b=value leads into an object), or a JSON value, or - to read that from stdin',
    )
    .addOption(rpcSocketOption('-s, --socket'))
    .addOption(
      new Option('-t, --timeout <seconds>', 'how long to wait for an answer')
        .argParser(integer(1, 86_400))
        .default(60),
    )
    .option('-j, --json', 'print the result on one line')
    .addOption(
      new Option('-l, --list', 'list the methods that the target has').conflicts([
        'batch',
        'follow',
      ]),
    )
    .addOption(
      new Option(
        '-b, --batch',
        'read calls from stdin, one a line, and print a result a line; the first failure ends it',
      ).conflicts('follow'),
    )
    .option('-f, --follow', 'keep the connection and print notifications, one a line')
    .helpOption(false)
    .option('-h, --help', 'print this help; with a method, what the target says of it')
    .addHelpText(
      'after',
      `
Examples:
  doorbell rpc bdev_get_bdevs
  doorbell rpc bdev_malloc_create name=Malloc0 num_blocks=131072 block_size=512
  doorbell rpc bdev_malloc_create '{"name": "Malloc0", "num_blocks": 131072, "block_size": 512}'
  doorbell rpc nvmf_subsystem_add_ns nqn=nqn.2026-11.io.example:vm0 namespace.bdev_name=Malloc0
  doorbell rpc nvmf_get_subsystems -s /var/tmp/spdk.sock
  doorbell rpc bdev_malloc_create --help
  doorbell rpc doorbell_watch --follow
  doorbell rpc --batch < setup.txt      lines like the words above, # starts a comment`,
    )
    .action(
      async (
        method: string | undefined,
        words: string[],
        flags: RpcFlags & { readonly help?: true },
        command: Command,
      ) => {
        if (flags.help && method === undefined) {
          command.outputHelp();
          return;
        }
        const { runBatch, runCall, runList, runMethodHelp } = await import('../rpc/run.ts');
        if (method === undefined) {
          if (!flags.list && !flags.batch) {
            command.error("error: missing required argument 'method'");
          }
          await (flags.list ? runList(flags) : runBatch(flags));
        } else if (flags.list || flags.batch) {
          command.error(`error: --${flags.list ? 'list' : 'batch'} takes no method`);
        } else if (flags.help) {
          await runMethodHelp(method, flags);
        } else {
          await runCall(method, words, flags);
        }
      },
    );
}
