/** `doorbell config convert`: a configuration file in the other form. */
import { writeFileSync } from 'node:fs';
import { type ConvertOptions, convertFile } from '../../app/config/convert.ts';
import { methodTable } from '../../app/config/methods.ts';
import { ConfigError, formatProblem } from '../../app/config/problem.ts';
import { describeError, withErrnoDetail } from '../../util/errors.ts';
import { CliError } from '../output.ts';

export interface ConvertFlags extends ConvertOptions {
  readonly output?: string;
}

/** Rejects with a CliError. What the other form cannot say is told on stderr, and is no error. */
export async function runConvert(
  file: string,
  { output, ...options }: ConvertFlags,
): Promise<void> {
  try {
    const { text, losses } = await convertFile(file, methodTable(), options);
    if (output === undefined) {
      process.stdout.write(text);
    } else {
      write(output, text);
    }
    for (const loss of losses) {
      process.stderr.write(`${formatProblem(loss)}\n`);
    }
  } catch (error) {
    if (error instanceof ConfigError) {
      process.stderr.write(`${error.message}\n`);
      throw new CliError('not converted');
    }
    throw error;
  }
}

function write(path: string, text: string): void {
  try {
    writeFileSync(path, text);
  } catch (error) {
    throw new CliError(`cannot write: ${describeError(withErrnoDetail(error, path))}`);
  }
}
