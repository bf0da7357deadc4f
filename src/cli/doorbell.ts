#!/usr/bin/env node
/** The command line: runs the program, and turns how it ends into one line on stderr and an exit code. */
import { CommanderError } from 'commander';
import { CliError, Exit, endWithReader } from './output.ts';
import { createProgram } from './program.ts';

endWithReader();
try {
  await createProgram().parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // It has printed what there is to say.
    process.exitCode = error.exitCode === 0 ? Exit.OK : Exit.USAGE;
  } else if (error instanceof CliError) {
    process.stderr.write(`doorbell: ${error.message}\n`);
    process.exitCode = error.exitCode;
  } else {
    throw error;
  }
}
