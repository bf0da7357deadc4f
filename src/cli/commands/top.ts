/** `doorbell top`: a live view of a running target. */
import { type Command, Option } from 'commander';
import { parsed, rpcSocketOption } from '../options.ts';
import type { TopFlags } from '../top/run.ts';

const SORT_KEYS = ['iops', 'bandwidth', 'latency', 'queue', 'name'];

const seconds = parsed((text: string): number => {
  const value = Number(text);
  if (text.trim() === '' || !(value >= 0.1 && value <= 3600)) {
    throw new Error('It must be a number from 0.1 to 3600.');
  }
  return value;
});

/** Adds `top` to the program. */
export function addTop(program: Command): void {
  program
    .command('top')
    .description(
      'Show what a running target does: load of its reactors, rates and latencies of its controllers, events.',
    )
    .addOption(rpcSocketOption('-s, --socket'))
    .addOption(
      new Option('-i, --interval <seconds>', 'time between two looks')
        .argParser(seconds)
        .default(1),
    )
    .addOption(
      new Option('--sort <key>', 'what controllers are sorted by')
        .choices(SORT_KEYS)
        .default('iops'),
    )
    .option('--filter <text>', 'only controllers whose socket, NQN or bdev has this in its name')
    .option('-1, --once', 'look for one interval, print, and end')
    .option('-j, --json', 'print a JSON object a line for each interval')
    .addHelpText(
      'after',
      `
Examples:
  doorbell top                       h shows the keys, q quits
  doorbell top --once                for a report
  doorbell top --json -i 10 | jq -c '.controllers[] | [.socket, .rate.iops]'

Latencies are those of what completed in the interval. Where stdout is no terminal it prints plain lines. NO_COLOR turns colours off.`,
    )
    .action(async (flags: TopFlags) => {
      const { runTop } = await import('../top/run.ts');
      await runTop(flags);
    });
}
