/** `doorbell config`: configuration files, without a target. */
import { type Command, Option } from 'commander';
import type { CheckFlags } from '../config/check.ts';
import type { ConvertFlags } from '../config/convert.ts';

/** Adds `config` to the program. */
export function addConfig(program: Command): void {
  const config = program.command('config').description('Check and convert configuration files.');
  config
    .command('check')
    .description(
      'Say all that is wrong with configuration files, as doorbell serve --config finds it.',
    )
    .argument('<file...>', 'together they are one configuration')
    .option('--no-host', 'do not look at disks, folders and processors: it is for another host')
    .option('-j, --json', 'print JSON')
    .addHelpText(
      'after',
      `
Examples:
  doorbell config check /etc/doorbell/vms.yaml        FILE:LINE:COLUMN: KEY: what is wrong; then the exit code is 1
  doorbell config check --no-host *.yaml
  doorbell config check vms.yaml --json | jq -r '.problems[] | .key'`,
    )
    .action(async (files: string[], flags: CheckFlags) => {
      const { runCheck } = await import('../config/check.ts');
      await runCheck(files, flags);
    });
  config
    .command('convert')
    .description(
      'Turn the short form of a configuration file into SPDK’s JSON configuration format, or back, as far as it can be said there.',
    )
    .argument('<file>', 'in either form, YAML or JSON')
    .addOption(new Option('--to <form>', 'default: the other one').choices(['short', 'spdk']))
    .addOption(
      new Option('--format <format>', 'default: yaml for short, json for spdk').choices([
        'yaml',
        'json',
      ]),
    )
    .option('-o, --output <file>', 'write it there (default: stdout)')
    .addHelpText(
      'after',
      `
Examples:
  doorbell config convert vms.yaml -o spdk.json
  doorbell config convert spdk.json > vms.yaml       what the short form cannot say is told on stderr`,
    )
    .action(async (file: string, flags: ConvertFlags) => {
      const { runConvert } = await import('../config/convert.ts');
      await runConvert(file, flags);
    });
}
