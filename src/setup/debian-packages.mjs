/**
 * Debian packages for the tests, unpacked into a folder and never installed.
 *
 * apt resolves and verifies them in a world of its own: its lists, its cache and an empty package database live below
 * our folder, so the machine's apt sees nothing of it, no root is needed, and a release newer than the machine's own
 * can be used. `Unpacked` is a root file system without any package's scripts run, enough for the dynamic loader
 * in it to run its programs in place, without a chroot.
 */

import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run, SetupError, which } from './tools.mjs';

/** The release that the guest is made of; its backports bring a QEMU with the vfio-user client (10.1 or newer). */
const RELEASE = 'trixie';
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** Why packages cannot be had here, if so. */
export function packagesUnavailable() {
  if (process.arch !== 'x64') return `the test guest is x86-64, this machine is ${process.arch}`;
  for (const tool of ['apt-get', 'apt-cache', 'dpkg-deb']) {
    if (!which(tool)) return `${tool} is not on PATH, so Debian's packages cannot be fetched`;
  }
  if (mirrors().length === 0) return 'the sources of apt on this machine name no mirror of Debian';
  return undefined;
}

/**
 * The Debian mirrors to try: those of the machine's own sources. No other host is ever asked.
 *
 * @returns {string[]} base addresses without a closing slash
 */
function mirrors() {
  const found = new Set();
  // One line for each release file that an update would fetch: 'ADDRESS/dists/SUITE/InRelease' NAME 0
  for (const line of run('apt-get', ['--print-uris', 'update']).split('\n')) {
    const match = line.match(/^'(\S+)\/dists\/([a-z]+)\/InRelease'/);
    if (match && /\/debian$|^mirror/.test(/** @type {string} */ (match[1]))) found.add(match[1]);
  }
  return [...found];
}

/**
 * The keys that sign Debian's archive: the machine's, or on Ubuntu those in its package of the same name.
 *
 * @param {string} folder
 */
function keyring(folder) {
  if (existsSync(KEYRING)) return KEYRING;
  run('apt-get', ['download', 'debian-archive-keyring'], { cwd: folder });
  const root = join(folder, 'keyring');
  unpack(folder, root);
  return join(root, KEYRING);
}

/**
 * @param {string} folder where the packages are
 * @param {string} root where they are unpacked
 */
function unpack(folder, root) {
  mkdirSync(root, { recursive: true });
  for (const name of readdirSync(folder)) {
    if (name.endsWith('.deb')) run('dpkg-deb', ['--extract', join(folder, name), root]);
  }
}

/**
 * @param {string} folder apt's world
 * @param {string} mirror
 * @returns {string} apt's configuration file
 */
function configure(folder, mirror) {
  for (const part of ['lists/partial', 'archives/partial']) {
    mkdirSync(join(folder, part), { recursive: true });
  }
  const source = `deb [arch=amd64 signed-by=${keyring(folder)}] ${mirror}`;
  writeFileSync(
    join(folder, 'sources.list'),
    `${source} ${RELEASE} main\n${source} ${RELEASE}-backports main\n`,
  );
  writeFileSync(
    join(folder, 'preferences'),
    `Package: src:qemu src:seabios\nPin: release n=${RELEASE}-backports\nPin-Priority: 900\n`,
  );
  writeFileSync(join(folder, 'status'), '');
  const file = join(folder, 'apt.conf');
  // Read after the machine's own settings, of which the proxy and the like stay, and the hooks go.
  writeFileSync(
    file,
    `#clear APT::Update;
#clear APT::Architectures;
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Dir::State "${folder}";
Dir::State::status "${folder}/status";
Dir::State::lists "${folder}/lists";
Dir::Cache "${folder}";
Dir::Cache::archives "${folder}/archives";
Dir::Etc::sourcelist "${folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "${folder}/preferences";
Dir::Etc::preferencesparts "/dev/null";
`,
  );
  return file;
}

/**
 * @param {readonly string[]} apt options of every call
 * @param {string} folder where the package goes
 */
function downloadKernel(apt, folder) {
  // The metapackage names the versioned kernel; its other dependencies serve an installed system.
  const depends = run('apt-cache', [...apt, 'depends', 'linux-image-amd64']);
  const kernel = depends.match(/\blinux-image-\d\S*/)?.[0];
  if (!kernel) throw new SetupError(`linux-image-amd64 names no kernel:\n${depends}`);
  run('apt-get', [...apt, 'download', kernel], { cwd: folder });
}

/**
 * Fetches packages with all that they depend on.
 *
 * @param {string} folder a folder to work in; `folder/root` is what comes out
 * @param {readonly string[]} names
 * @param {{ kernel?: boolean }} [options] whether to fetch a kernel, too, which is taken alone
 * @returns {Unpacked}
 * @throws {SetupError} when no mirror has them
 */
export function fetchPackages(folder, names, options = {}) {
  const tried = mirrors();
  let output = '';
  for (const mirror of tried) {
    const world = join(folder, 'apt');
    try {
      const apt = ['-c', configure(world, mirror)];
      run('apt-get', [...apt, 'update']);
      run('apt-get', [...apt, '-y', '--download-only', 'install', ...names]);
      if (options.kernel) downloadKernel(apt, join(world, 'archives'));
    } catch (error) {
      if (!(error instanceof SetupError)) throw error;
      output += `${error.output}${error.message}\n`;
      rmSync(world, { recursive: true, force: true });
      continue;
    }
    const root = join(folder, 'root');
    unpack(join(world, 'archives'), root);
    rmSync(world, { recursive: true });
    return new Unpacked(root);
  }
  const failure = new SetupError(`packages cannot be fetched from ${tried.join(' or ')}`);
  failure.output = output;
  throw failure;
}

/** A folder of unpacked packages, and how to run their programs. */
export class Unpacked {
  /** @param {string} root */
  constructor(root) {
    this.root = root;
  }

  /** @param {string} path an absolute path inside */
  path(path) {
    return join(this.root, path);
  }

  /**
   * The command line that runs a program by the loader and the libraries of this folder.
   *
   * @param {string} program an absolute path inside
   * @param {readonly string[]} loaderOptions
   * @returns {string[]}
   */
  command(program, loaderOptions = []) {
    return [
      this.path('/usr/lib64/ld-linux-x86-64.so.2'),
      '--library-path',
      this.libraryPath(),
      ...loaderOptions,
      this.path(program),
    ];
  }

  /** The multiarch folder, and those in it that hold libraries which programs find by an absolute run path. */
  libraryPath() {
    const base = this.path('/usr/lib/x86_64-linux-gnu');
    const inner = readdirSync(base, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => join(base, entry.name))
      .filter((path) => readdirSync(path).some((name) => /^lib.*\.so(\.|$)/.test(name)));
    return [base, ...inner].join(':');
  }

  /**
   * The libraries that a program needs, and its loader.
   *
   * @param {string} program an absolute path inside
   * @returns {string[]} absolute paths inside
   */
  libraries(program) {
    const [loader, ...args] = this.command(program, ['--list']);
    const listed = run(/** @type {string} */ (loader), args);
    const paths = [...listed.matchAll(/(?:=> |^\s*)(\/\S+) \(0x/gm)].map((match) => `${match[1]}`);
    const outside = paths.filter((path) => !path.startsWith(`${this.root}/`));
    if (outside.length > 0) throw new SetupError(`${program} needs ${outside.join(', ')}`);
    return paths.map((path) => path.slice(this.root.length));
  }

  /** @param {string} path an absolute path inside */
  read(path) {
    return readFileSync(this.path(path));
  }
}
