/** docs/conformance.md: what the controller supports, made of what is registered. As a program it writes the file. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { IDENTIFY_DATA } from '../../src/nvme/admin/identify.ts';
import { ADMIN_COMMANDS } from '../../src/nvme/admin/table.ts';
import { NOTICES } from '../../src/nvme/events.ts';
import { Features } from '../../src/nvme/features/state.ts';
import { FORWARDED_COMMANDS } from '../../src/nvme/forwarded.ts';
import { IO_COMMANDS } from '../../src/nvme/io-commands.ts';
import { LOG_PAGES } from '../../src/nvme/logs/table.ts';
import { Cns } from '../../src/spec/admin.ts';
import { Fid } from '../../src/spec/features.ts';
import { Lid } from '../../src/spec/logs.ts';

/** From dist/test/helpers. */
const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
export const CONFORMANCE_PATH = join(ROOT, 'docs/conformance.md');

const hex = (value: number): string => `${value.toString(16).toUpperCase().padStart(2, '0')}h`;

/** The key of a constant, as words. */
function words(constants: Readonly<Record<string, number>>, value: number): string {
  const name = Object.entries(constants).find(([, each]) => each === value)?.[0] ?? '';
  return name
    .toLowerCase()
    .replaceAll('_', ' ')
    .replace(/\bcsi\b/, 'command set specific')
    .replace('io ', 'I/O ');
}

const spaced = (name: string): string =>
  name.replace(/(?<=[a-z])(?=[A-Z])/g, ' ').replace(/Io ([SC])q/, 'I/O $1Q');

function table(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(heads), line(heads.map(() => '---')), ...rows.map(line)].join('\n');
}

const byNumber = <T>(list: readonly T[], number: (each: T) => number): T[] =>
  [...list].sort((a, b) => number(a) - number(b));

export function conformanceText(): string {
  const features = new Features(1, () => false).all;
  const sections: [string, string, string][] = [
    [
      'Admin commands',
      'Any other opcode is refused as Invalid Command Opcode.',
      table(
        ['opcode', 'command', 'bit of OACS'],
        byNumber(ADMIN_COMMANDS, ({ opcode }) => opcode).map(({ opcode, name, oacs }) => [
          hex(opcode),
          spaced(name),
          oacs ?? '',
        ]),
      ),
    ],
    [
      'I/O commands',
      'Of the NVM command set, with PRPs or SGLs; one at a time: there are no fused commands.',
      table(
        ['opcode', 'command', 'bit of ONCS'],
        byNumber([...IO_COMMANDS, ...FORWARDED_COMMANDS], ({ opcode }) => opcode).map(
          ({ opcode, name, oncs }) => [hex(opcode), spaced(name), oncs ?? ''],
        ),
      ),
    ],
    [
      'Identify',
      'Any other CNS is refused as Invalid Field in Command.',
      table(
        ['CNS', 'data structure'],
        byNumber(IDENTIFY_DATA, ({ cns }) => cns).map(({ cns }) => [hex(cns), words(Cns, cns)]),
      ),
    ],
    [
      'Log pages',
      'Each takes an offset and any length up to MDTS. Any other identifier is refused as Invalid Log Page.',
      table(
        ['LID', 'log', 'bit of LPA'],
        byNumber(LOG_PAGES, ({ lid }) => lid).map(({ lid, lpa }) => [
          hex(lid),
          words(Lid, lid),
          lpa ?? '',
        ]),
      ),
    ],
    [
      'Features',
      'Get Features takes Select; no feature can be saved, and a controller reset brings the defaults back, but for the write protection of a namespace, and whether its reservation persists.',
      table(
        ['FID', 'feature', 'of'],
        features.map(({ fid, perNamespace }) => [
          hex(fid),
          words(Fid, fid),
          perNamespace ? 'a namespace' : 'the controller',
        ]),
      ),
    ],
    [
      'Asynchronous events',
      'Errors of doorbells, the temperature, and the notices that a host asks for.',
      table(
        ['notice'],
        NOTICES.map((notice) => [spaced(notice).toLowerCase()]),
      ),
    ],
  ];
  const parts = sections.map(([title, text, rows]) => `## ${title}\n\n${text}\n\n${rows}\n`);
  const head = `# What the controller supports

NVM Express Base 2.0, NVM Command Set 1.0, over PCIe. This page is made by \`npm run docs\` of what is registered in \`src/nvme\`: the same
tables that Identify and the logs of supported commands, features and pages are made of.
`;
  return [head, ...parts].join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(CONFORMANCE_PATH, conformanceText());
}
