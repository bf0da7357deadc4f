/** The commander program: every command is a file of `commands/`, and loads what it runs when it is called. */
import { Command } from 'commander';
import { VERSION } from '../util/version.ts';
import { addCompletion } from './commands/completion.ts';
import { addConfig } from './commands/config.ts';
import { addDisk } from './commands/disk.ts';
import { addIdentify } from './commands/identify.ts';
import { addPerf } from './commands/perf.ts';
import { addRpc } from './commands/rpc.ts';
import { addServe } from './commands/serve.ts';
import { addTop } from './commands/top.ts';

/** A fresh program with all commands. Its `parseAsync` rejects with a CommanderError (help and version too) or what a command throws. */
export function createProgram(): Command {
  const program = new Command('doorbell')
    .description('An NVMe controller for virtual machines, served over vfio-user.')
    .version(VERSION, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .showHelpAfterError('(doorbell --help tells more)')
    // As all other errors begin.
    .configureOutput({
      outputError: (text, write) => write(text.replace(/^error: /, 'doorbell: ')),
    })
    // Throws a CommanderError where commander would end the process.
    .exitOverride();
  addServe(program);
  addRpc(program);
  addIdentify(program);
  addPerf(program);
  addTop(program);
  addConfig(program);
  addDisk(program);
  addCompletion(program);
  return program;
}
