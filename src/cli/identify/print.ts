/** What was read of a controller, as text for people and as one JSON value for programs. */
import { Flbas, LbaFormat, Nidt, PowerState, PowerStateFlags } from '../../spec/identify.ts';
import { Version } from '../../spec/registers.ts';
import { formatUuid } from '../../util/uuid.ts';
import { binarySize } from '../size.ts';
import { CONTROLLER, type Look, NAMESPACE, REGISTERS } from './fields.ts';
import type { IdentifyReport, NamespaceReport } from './read.ts';
import { smartJson, smartText } from './smart.ts';
import { fieldLines, jsonOf, textOf, type Value } from './values.ts';

/** The parts that were asked for. */
export interface Parts {
  readonly controller: boolean;
  readonly namespaces: boolean;
  readonly human: boolean;
}

type Fields = Readonly<Record<string, Look | undefined>>;

/** Shown in a form of their own. */
const LISTS = new Set(['psds', 'lbafs']);

/** The fields of a structure that are to be shown, in its order. */
function* shown(
  values: Readonly<Record<string, number | Uint8Array>>,
  looks: Fields,
): Generator<[string, Value, Look]> {
  for (const [name, value] of Object.entries(values)) {
    const look = looks[name] ?? {};
    if (!LISTS.has(name) && (look.when === undefined || look.when(values))) {
      yield [name, value, look];
    }
  }
}

function entries<T>(data: Uint8Array, size: number, count: number, read: (view: DataView) => T) {
  const fits = Math.min(count, Math.floor(data.length / size));
  return Array.from({ length: fits }, (_, i) =>
    read(new DataView(data.buffer, data.byteOffset + i * size, size)),
  );
}

const powerStates = ({ psds, npss }: IdentifyReport['controller']) =>
  entries(psds, PowerState.size, npss + 1, (view) => PowerState.read(view));

const lbaFormats = ({ lbafs, nlbaf, nulbaf }: NamespaceReport['identify']) =>
  entries(lbafs, LbaFormat.size, nlbaf + nulbaf + 1, (view) => LbaFormat.read(view));

/** FLBAS: the format in use; bits 6:5 count from the sixteenth on. */
function formatInUse(flbas: number): number {
  const { formatLow, formatHigh } = Flbas.decode(flbas);
  return formatLow + 16 * formatHigh;
}

export function controllerText({ controller }: IdentifyReport, human: boolean): string[] {
  const lines = ['NVME Identify Controller:'];
  for (const [name, value, look] of shown(controller, CONTROLLER)) {
    lines.push(...fieldLines(name, value, look, { width: 10, human }));
  }
  for (const [i, state] of powerStates(controller).entries()) {
    const { mxps, nops } = PowerStateFlags.decode(state.flags);
    const watts = (state.mp / (mxps ? 10_000 : 100)).toFixed(2);
    const kind = nops ? 'non-operational' : 'operational';
    const { enlat, exlat, rrt, rrl, rwt, rwl } = state;
    lines.push(
      `ps ${String(i).padStart(6)} : mp:${watts}W ${kind} enlat:${enlat} exlat:${exlat} rrt:${rrt} rrl:${rrl}`,
      `            rwt:${rwt} rwl:${rwl}`,
    );
  }
  return lines;
}

const RELATIVE_PERFORMANCE = ['Best', 'Better', 'Good', 'Degraded'];

export function namespaceText({ nsid, identify, descriptors }: NamespaceReport, human: boolean) {
  const lines = [`NVME Identify Namespace ${nsid}:`];
  for (const [name, value, look] of shown(identify, NAMESPACE)) {
    lines.push(...fieldLines(name, value, look, { width: 8, human }));
  }
  const inUse = formatInUse(identify.flbas);
  for (const [i, { ms, ds, rp }] of lbaFormats(identify).entries()) {
    const number = String(i).padStart(2);
    const use = i === inUse ? ' (in use)' : '';
    lines.push(
      human
        ? `LBA Format ${number} : Metadata Size: ${String(ms).padEnd(3)} bytes - Data Size: ${2 ** ds} bytes - Relative Performance: ${rp} ${RELATIVE_PERFORMANCE[rp & 3]}${use}`
        : `lbaf ${number} : ms:${String(ms).padEnd(3)} lbads:${String(ds).padEnd(2)} rp:${rp}${use}`,
    );
  }
  lines.push(`NVME Namespace Identification Descriptors NS ${nsid}:`);
  for (const [name, value] of Object.entries(namedDescriptors(descriptors))) {
    lines.push(`${name.padEnd(8)}: ${value}`);
  }
  return lines;
}

/** Descriptors under the names of their types; types that this does not know under their number. */
function namedDescriptors(descriptors: NamespaceReport['descriptors']): Record<string, string> {
  const named: Record<string, string> = {};
  for (const { nidt, value } of descriptors) {
    const digits = Buffer.from(value).toString('hex');
    const name = Object.entries(Nidt)
      .find(([, type]) => type === nidt)?.[0]
      .toLowerCase();
    const uuid = nidt === Nidt.UUID && value.length === 16;
    const text = nidt === Nidt.CSI ? String(value[0]) : uuid ? formatUuid(digits) : digits;
    named[name ?? `type${nidt}`] = text;
  }
  return named;
}

export function registersText({ registers }: IdentifyReport, human: boolean): string[] {
  const lines = ['Controller registers, before this client enabled it:'];
  for (const [name, value] of registers) {
    lines.push(...fieldLines(name, value, REGISTERS[name] ?? { form: 'hex' }, { width: 8, human }));
  }
  return lines;
}

const id = (value: number): string => value.toString(16).padStart(4, '0');

/** PCI identifiers as lspci writes them. */
function pciText({ pci, msixVectors }: IdentifyReport): string {
  const { vendorId, deviceId, subsystemVendorId, subsystemId, revision } = pci;
  const { classCode, subclass, progIf } = pci;
  const kind = [classCode, subclass, progIf].map((code) => id(code).slice(2)).join('');
  const ids = `[${id(vendorId)}:${id(deviceId)}] subsystem [${id(subsystemVendorId)}:${id(subsystemId)}]`;
  return `${ids} class ${kind} rev ${id(revision).slice(2)}, ${msixVectors} MSI-X vectors`;
}

function version(value: number): string {
  const { mjr, mnr, ter } = Version.decode(value);
  return `${mjr}.${mnr}.${ter}`;
}

/** One screen: what it is, and a line for each namespace. */
export function overviewText(report: IdentifyReport): string[] {
  const { controller, registers } = report;
  const field = (name: 'sn' | 'mn' | 'fr' | 'subnqn') =>
    textOf(controller[name], { form: 'text' }).trim();
  const rows: [string, string][] = [
    ['socket', report.socket],
    ['pci', pciText(report)],
    ['model', field('mn')],
    ['serial', field('sn')],
    ['firmware', field('fr')],
    ['subnqn', field('subnqn')],
    ['nvme', `${version(controller.ver)}, controller ${controller.cntlid}`],
  ];
  for (const name of ['cap', 'vs', 'cc', 'csts'] as const) {
    rows.push([name, `0x${(registers.get(name) ?? 0n).toString(16)}`]);
  }
  const lines = rows.map(([name, value]) => `${name.padEnd(9)}: ${value}`);
  lines.push('', `namespaces: ${report.nsids.length} of at most ${controller.nn}`);
  for (const { nsid, identify, descriptors } of report.namespaces) {
    const format = lbaFormats(identify)[formatInUse(identify.flbas)];
    const bytes = 2 ** (format?.ds ?? 0);
    const uuid = namedDescriptors(descriptors).uuid ?? '';
    const readonly = (identify.nsattr & 1) === 0 ? '' : '  write protected';
    lines.push(
      `  ${String(nsid).padStart(5)}  ${binarySize(identify.nsze * bytes).padStart(11)}  ${identify.nsze} blocks of ${bytes} B  ${uuid}${readonly}`,
    );
  }
  return lines;
}

/** Everything as text, in the order of the parts. */
export function identifyText(report: IdentifyReport, parts: Parts): string {
  const { controller, namespaces, human } = parts;
  if (!controller && !namespaces) {
    return overviewText(report).join('\n');
  }
  const sections: string[][] = [];
  if (controller) {
    sections.push(
      [`PCI: ${pciText(report)}`],
      registersText(report, human),
      controllerText(report, human),
      [`Active namespaces: ${report.nsids.join(' ') || 'none'}`],
      smartText(report.smart),
    );
  }
  if (namespaces) {
    sections.push(...report.namespaces.map((namespace) => namespaceText(namespace, human)));
  }
  return sections.map((lines) => lines.join('\n').trimEnd()).join('\n\n');
}

function fieldsJson(values: Readonly<Record<string, number | Uint8Array>>, looks: Fields) {
  return Object.fromEntries(
    [...shown(values, looks)].map(([name, value, look]) => [name, jsonOf(value, look)]),
  );
}

/** Everything that was read. `controller`, `namespaces` and `smart_log` have nvme-cli's names and values. */
export function identifyJson(report: IdentifyReport): unknown {
  const { controller, pci } = report;
  return {
    socket: report.socket,
    pci: {
      vendor_id: pci.vendorId,
      device_id: pci.deviceId,
      subsystem_vendor_id: pci.subsystemVendorId,
      subsystem_id: pci.subsystemId,
      revision: pci.revision,
      class: (pci.classCode << 16) | (pci.subclass << 8) | pci.progIf,
      msix_vectors: report.msixVectors,
    },
    registers: Object.fromEntries(
      [...report.registers].map(([name, value]) => [name, jsonOf(value, {})]),
    ),
    controller: { ...fieldsJson(controller, CONTROLLER), psds: powerStates(controller) },
    nsids: report.nsids,
    namespaces: report.namespaces.map(({ nsid, identify, descriptors }) => ({
      nsid,
      ...fieldsJson(identify, NAMESPACE),
      lbafs: lbaFormats(identify),
      descriptors: namedDescriptors(descriptors),
    })),
    smart_log: smartJson(report.smart),
  };
}
