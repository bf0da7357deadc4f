/** `doorbell disk`: files that are served as disks. */
import { Argument, type Command, Option } from 'commander';
import { parseSize } from '../../app/size.ts';
import type { CreateFlags } from '../disk/create.ts';
import { parsed } from '../options.ts';

const diskSize = parsed((text: string): number => {
  const bytes = parseSize(text);
  if (bytes % 4096 !== 0) {
    throw new Error('It must be a multiple of 4096 bytes.');
  }
  return bytes;
});

/** Adds `disk` to the program. */
export function addDisk(program: Command): void {
  const disk = program.command('disk').description('Make files that are served as disks.');
  disk
    .command('create')
    .description('Make a disk of zeros in a file, readable and writable for this user only.')
    .argument('<file>', 'which must not be there yet')
    .addArgument(new Argument('<size>', 'for example 20G or 512M').argParser(diskSize))
    .addOption(
      new Option('--sparse', 'take space when the guest writes (default)').conflicts('preallocate'),
    )
    .option('--preallocate', 'write zeros to all of it, so that the guest never runs out of space')
    .option('-j, --json', 'print JSON')
    .addHelpText(
      'after',
      `
Examples:
  doorbell disk create vm0.img 20G
  doorbell disk create vm0.img 20G --preallocate     shows progress; Ctrl-C removes the file`,
    )
    .action(async (file: string, size: number, flags: CreateFlags) => {
      const { runCreate } = await import('../disk/create.ts');
      await runCreate(file, size, flags);
    });
}
