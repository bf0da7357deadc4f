/** Configuration files → what they ask for, checked as far as that can be done without the host. */
import { resolve } from 'node:path';
import {
  largestTransport,
  type TransportChoices,
  transportParams,
} from '../../target/model/transport.ts';
import { type Folded, foldCalls, type PlacedCall } from './fold.ts';
import { ConfigError, type Problem, refuse } from './problem.ts';
import type { Settings } from './settings.ts';
import { compileShort, type ImageSize } from './short.ts';
import { readSource, type Source } from './source.ts';
import { isSpdkForm, type MethodTable, readSpdk } from './spdk.ts';

/** What is wrong with the files, and the rest of what they say: so that the host can be looked at, too, before all is told at once. */
export interface Reading extends LoadedConfig {
  readonly problems: readonly Problem[];
}

export interface LoadedConfig extends Folded {
  readonly settings: Settings;
  /** Files to make, or to make longer: by the bdev. */
  readonly sizes: ReadonlyMap<string, ImageSize>;
  /** Calls to be made at each start. */
  readonly calls: readonly PlacedCall[];
  /** Calls that have no effect here. */
  readonly ignored: readonly PlacedCall[];
}

/** What the command line says beside the files. */
export interface LoadChoices extends TransportChoices {
  /** Of the sockets that the files do not name. */
  readonly socketDir?: string | undefined;
}

/** `choices`: whatever the files say. What is wrong is among the `problems`. */
export async function loadConfig(
  files: readonly string[],
  methods: MethodTable,
  choices: LoadChoices = {},
): Promise<Reading> {
  return readConfig(await readSources(files), methods, choices);
}

/** Files as they could be read, and what is wrong with the others. */
export interface Sources {
  readonly sources: readonly Source[];
  readonly unread: readonly Problem[];
}

export async function readSources(files: readonly string[]): Promise<Sources> {
  const unread: Problem[] = [];
  const sources: Source[] = [];
  for (const file of files) {
    try {
      sources.push(await readSource(file));
    } catch (error) {
      if (!(error instanceof ConfigError)) {
        throw error;
      }
      unread.push(...error.problems);
    }
  }
  return { sources, unread };
}

/** Throws ConfigError with all that is wrong. */
export function compileSources(
  sources: readonly Source[],
  methods: MethodTable,
  choices: LoadChoices = {},
): LoadedConfig {
  const { problems, ...loaded } = readConfig({ sources, unread: [] }, methods, choices);
  refuse(problems);
  return loaded;
}

/** See {@link loadConfig}. */
export function readConfig(
  { sources, unread }: Sources,
  methods: MethodTable,
  choices: LoadChoices = {},
): Reading {
  const problems: Problem[] = [...unread];
  const socketFolder = choices.socketDir === undefined ? undefined : resolve(choices.socketDir);
  const calls: PlacedCall[] = [];
  const settingCalls: PlacedCall[] = [];
  const ignored: PlacedCall[] = [];
  const sizes = new Map<string, ImageSize>();
  let settings: Settings = {};
  let short: Source | undefined;
  for (const source of sources) {
    if (isSpdkForm(source.value)) {
      const spdk = readSpdk(source, methods, problems);
      calls.push(...spdk.calls);
      settingCalls.push(...spdk.settings);
      ignored.push(...spdk.ignored);
      continue;
    }
    short ??= source;
    const compiled = compileShort(source, problems, socketFolder);
    calls.push(...compiled.calls);
    for (const [bdev, size] of compiled.sizes) {
      sizes.set(bdev, size);
    }
    for (const key of Object.keys(compiled.settings)) {
      if (key in settings) {
        problems.push({
          place: source.place([]),
          message: `another file has a setting for '${key}', too`,
        });
      }
    }
    settings = { ...settings, ...compiled.settings };
  }
  if (short !== undefined && !calls.some(({ method }) => method === 'nvmf_create_transport')) {
    const transport = largestTransport({
      trapDoorbells: choices.trapDoorbells ?? settings.trapDoorbells,
      mapFileMemory: choices.mapFileMemory ?? settings.mapFileMemory,
      requireSharedMemory: choices.requireSharedMemory ?? settings.requireSharedMemory,
    });
    calls.unshift({
      method: 'nvmf_create_transport',
      params: transportParams(transport),
      place: short.place([]),
    });
  }
  // Of what stands in a file that cannot be read it would be said that it is not there.
  const folded = foldCalls(unread.length === 0 ? calls : [], problems);
  return {
    problems,
    plan: folded.plan,
    places: folded.places,
    settings,
    sizes,
    calls: settingCalls,
    ignored,
  };
}
