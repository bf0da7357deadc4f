/** Files of the package that are made of the program: manual pages and completions. `npm run docs` renews them. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { VERSION } from '../util/version.ts';
import { SCRIPTS } from './completion/scripts.ts';
import { manPages } from './man.ts';
import { createProgram } from './program.ts';

/** From dist/src/cli. */
const ROOT = new URL('../../../', import.meta.url);

/** What each file should be, by its path. */
export function madeFiles(): ReadonlyMap<string, string> {
  const pages = [...manPages(createProgram(), VERSION)].map(([name, text]) => [
    `man/${name}`,
    text,
  ]);
  return new Map([
    ...(pages as [string, string][]),
    // Under the names by which the shells find them.
    ['completions/doorbell', SCRIPTS.bash],
    ['completions/_doorbell', SCRIPTS.zsh],
    ['completions/doorbell.fish', SCRIPTS.fish],
  ]);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [path, text] of madeFiles()) {
    const file = fileURLToPath(new URL(path, ROOT));
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
  }
}
