/** `doorbell identify`: read, then print what was asked for. */
import { print, printJson } from '../output.ts';
import { identifyJson, identifyText } from './print.ts';
import { readIdentify } from './read.ts';

export interface IdentifyFlags {
  readonly controller?: true;
  readonly namespace?: number;
  readonly all?: true;
  readonly humanReadable?: true;
  readonly json?: true;
  /** Seconds. */
  readonly timeout: number;
}

/** Rejects with a CliError. */
export async function runIdentify(socket: string, flags: IdentifyFlags): Promise<void> {
  const { controller = false, namespace, all = false } = flags;
  const namespaces = namespace !== undefined ? [namespace] : controller ? [] : ('all' as const);
  const report = await readIdentify(socket, { namespaces, timeoutMs: flags.timeout * 1000 });
  if (flags.json) {
    printJson(identifyJson(report));
    return;
  }
  print(
    identifyText(report, {
      controller: controller || all,
      namespaces: namespace !== undefined || all,
      human: flags.humanReadable ?? false,
    }),
  );
}
