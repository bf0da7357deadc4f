/** `doorbell identify`: what the NVMe controller behind a vfio-user socket says about itself. */
import { type Command, Option } from 'commander';
import type { IdentifyFlags } from '../identify/run.ts';
import { integer } from '../options.ts';

/** Adds `identify` to the program. */
export function addIdentify(program: Command): void {
  program
    .command('identify')
    .description(
      'Print what the NVMe controller behind a vfio-user socket says about itself, ours or SPDK’s, as `nvme id-ctrl` and `nvme id-ns` do.',
    )
    .argument('<socket>', 'the socket that the VM gets, for example /run/vm0/cntrl')
    .addOption(
      new Option(
        '-c, --controller',
        'PCI ids, registers, Identify Controller, active namespaces, SMART log',
      ).conflicts(['namespace', 'all']),
    )
    .addOption(
      new Option('-n, --namespace <nsid>', 'Identify Namespace and descriptors of one namespace')
        .argParser(integer(1, 0xffff_fffe))
        .conflicts('all'),
    )
    .option('-a, --all', 'the controller and all its namespaces')
    .option('-H, --human-readable', 'say what the bits of each field mean')
    .option('-j, --json', 'print JSON: all that was read')
    .addOption(
      new Option('-t, --timeout <seconds>', 'how long to wait for the server')
        .argParser(integer(1, 3600))
        .default(5),
    )
    .addHelpText(
      'after',
      `
Examples:
  doorbell identify /run/vm0/cntrl           one screen: what it is, its namespaces
  doorbell identify /run/vm0/cntrl -c -H     as nvme id-ctrl -H
  doorbell identify /run/vm0/cntrl -n 1      as nvme id-ns -n 1 and nvme ns-descs
  doorbell identify /run/vm0/cntrl --json | jq .controller.mdts

It connects as a VM does, and a socket serves one client: while a VM is connected it refuses, and does not touch the controller.`,
    )
    .action(async (socket: string, flags: IdentifyFlags) => {
      const { runIdentify } = await import('../identify/run.ts');
      await runIdentify(socket, flags);
    });
}
