/** The C++ toolchain that builds the addon: make, a C++ compiler, Python for node-gyp. */

import { isRoot, run, SetupError, say, which } from './tools.mjs';

/** What is needed, with the Debian package that brings it. */
const TOOLS = [
  { names: [process.env.MAKE ?? 'make', 'gmake'], debian: 'make' },
  { names: [process.env.CXX?.split(' ')[0] ?? 'g++', 'c++', 'clang++'], debian: 'g++' },
  {
    names: [process.env.npm_config_python ?? process.env.PYTHON ?? 'python3', 'python'],
    debian: 'python3',
  },
];

/**
 * Sees to it that the addon can be built.
 *
 * @param {{ install: boolean }} options whether missing tools may be installed by apt
 * @throws {SetupError} naming what is missing
 */
export function ensureToolchain({ install }) {
  const missing = TOOLS.filter(({ names }) => !names.some((name) => which(name)));
  if (missing.length === 0) return;
  const packages = missing.map(({ debian }) => debian);
  if (!install || !isRoot() || !which('apt-get')) {
    throw new SetupError(
      `building the native addon needs ${packages.join(', ')}: install them ` +
        `(on Debian or Ubuntu: apt-get install ${packages.join(' ')}) and try again`,
    );
  }
  say(`installing ${packages.join(', ')} by apt-get`);
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  run('apt-get', ['update'], { env });
  run('apt-get', ['install', '-y', '--no-install-recommends', ...packages], { env });
}
