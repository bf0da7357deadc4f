/** One form of a configuration file in the other: the short form as SPDK's JSON configuration, and back. Nothing is started. */
import { stringify } from 'yaml';
import { planDocument } from '../../target/model/plan.ts';
import { compileSources, type LoadedConfig } from './load.ts';
import { inOrder, type Problem } from './problem.ts';
import { shorten } from './shorten.ts';
import { parseSource, readSource, type Source } from './source.ts';
import { isSpdkForm, type MethodTable } from './spdk.ts';

export const FORMS = ['short', 'spdk'] as const;
export type Form = (typeof FORMS)[number];

export const FORMATS = ['yaml', 'json'] as const;
export type Format = (typeof FORMATS)[number];

/** The form that is asked for; default: the other one. Its text; default: as the form is usually written. */
export interface ConvertOptions {
  readonly to?: Form | undefined;
  readonly format?: Format | undefined;
}

export interface Converted {
  readonly text: string;
  /** What the other form cannot say, each at its place. */
  readonly losses: readonly Problem[];
}

/** Keys of the short form that say what there is, and not how the process runs. */
const CONTENT = [
  ...['vms', 'disks', 'socket', 'sockets', 'serial', 'model', 'nqn', 'max-disks'],
  ...['trap-doorbells', 'map-file-memory', 'require-shared-memory'],
];

/** Rejects with ConfigError with all that is wrong with the file. The same form again is the same content in another format. */
export async function convertFile(
  file: string,
  methods: MethodTable,
  options?: ConvertOptions,
): Promise<Converted> {
  return convertSource(await readSource(file), methods, options);
}

/** The same of a file that was read. Throws ConfigError. */
export function convertSource(
  source: Source,
  methods: MethodTable,
  options: ConvertOptions = {},
): Converted {
  const { file } = source;
  const loaded = compileSources([source], methods);
  const from: Form = isSpdkForm(source.value) ? 'spdk' : 'short';
  const to = options.to ?? (from === 'short' ? 'spdk' : 'short');
  const losses: Problem[] = [];
  const value =
    to === from
      ? source.value
      : to === 'spdk'
        ? lengthen(source, loaded, losses)
        : shorten(file, loaded, losses);
  const text = format(value, options.format ?? (to === 'short' ? 'yaml' : 'json'));
  if (to !== from) {
    // What cannot be read again was not converted.
    compileSources([parseSource(text, `${file} in the other form`)], methods);
  }
  return { text, losses: inOrder(losses) };
}

/** SPDK's form. */
function lengthen(source: Source, { plan, sizes }: LoadedConfig, losses: Problem[]): unknown {
  for (const key of Object.keys(source.value as object)) {
    if (!CONTENT.includes(key)) {
      const message = 'left out: it is for the command line of doorbell serve';
      losses.push({ place: source.place([key]), message });
    }
  }
  for (const [bdev, { bytes, place }] of sizes) {
    const path = plan.bdevs.get(bdev)?.params.filename;
    const message = `left out: ${path} is not made any more (doorbell disk create makes one of ${bytes} bytes)`;
    losses.push({ place, message });
  }
  return planDocument(plan);
}

function format(value: unknown, format: Format): string {
  return format === 'json' ? `${JSON.stringify(value, null, 2)}\n` : stringify(value);
}
