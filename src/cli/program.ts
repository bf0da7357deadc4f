/** The commander program: every command is a file of `commands/`, and loads what it runs when it is called. */
import { Command } from 'commander';
import { VERSION } from '../util/version.ts';
import { addRpc } from './commands/rpc.ts';
import { addServe } from './commands/serve.ts';

/** A fresh program with all commands. */
export function createProgram(): Command {
  const program = new Command('doorbell')
    .description('An NVMe controller for virtual machines, served over vfio-user.')
    .version(VERSION, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .showHelpAfterError('(doorbell --help tells more)');
  addServe(program);
  addRpc(program);
  return program;
}
