/** Other versions of Node, with their headers, from the npm registry: to build the addon for them, and to try the package on them. */

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { cached } from './cache.mjs';
import { run, say } from './tools.mjs';

/**
 * Gives the path of the program `node` of a version, fetched once.
 *
 * @param {string} version as '22.23.3'
 * @returns {string}
 */
export function ensureNode(version) {
  const name = `node-linux-${process.arch}`;
  const folder = cached(`node${version}`, process.arch, (made, work) => {
    say(`fetching Node ${version} (npm pack ${name})`);
    mkdirSync(work, { recursive: true });
    const packed = run('npm', ['pack', '--silent', `${name}@${version}`], { cwd: work });
    const archive = join(work, packed.trim().split('\n').at(-1) ?? '');
    const parts = ['package/bin/node', 'package/include'];
    run('tar', ['-xzf', archive, '-C', made, '--strip-components=1', ...parts]);
  });
  return join(folder, 'bin', 'node');
}
