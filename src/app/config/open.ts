/** The configuration that the command line asks for, and what it says of the process. */
import { componentLogger, type Logger } from '../../util/log.ts';
import type { DiskOptions } from '../disks.ts';
import type { Configuration } from './configuration.ts';
import { refuseBeside, refuseUnusable } from './unusable.ts';

export interface ConfigOptions {
  readonly config?: readonly string[] | undefined;
  /** Where the configuration is kept over restarts. */
  readonly stateDir?: string | undefined;
  /** Names of the options that were given: files say what the others are. */
  readonly given?: ReadonlySet<string> | undefined;
}

/** Reads and checks it, if there is any. Throws InvalidError for what cannot be used. */
export async function openConfiguration<T extends ConfigOptions & DiskOptions>(
  options: T,
  log: Logger,
): Promise<{ readonly configuration: Configuration | undefined; readonly options: T }> {
  const { config = [], stateDir, given, trapDoorbells, mapFileMemory, socketDir } = options;
  const { requireSharedMemory } = options;
  refuseUnusable(options);
  if (config.length === 0 && stateDir === undefined) {
    return { configuration: undefined, options };
  }
  // Loaded when needed: the parser and the schemas take time.
  const [{ Configuration }, { methodTable }] = await Promise.all([
    import('./configuration.ts'),
    import('./methods.ts'),
  ]);
  const configuration = await Configuration.open({
    files: config,
    stateDir,
    trapDoorbells,
    mapFileMemory,
    requireSharedMemory,
    socketDir,
    methods: methodTable(),
    log: componentLogger(log, 'app'),
  });
  try {
    refuseBeside(options, configuration.plan, configuration.restores);
  } catch (error) {
    await configuration.close();
    throw error;
  }
  const settings = Object.entries(configuration.settings).filter(
    ([name]) => given?.has(name) !== true,
  );
  return {
    configuration,
    options: {
      ...options,
      // Of use only if there are no others.
      ...(config.length > 0 && { defaultDisk: undefined }),
      ...Object.fromEntries(settings),
    },
  };
}
