/**
 * How each field that Identify and the registers have is shown: the one table behind text and JSON. Which fields there are, and their
 * order, comes from the structures in `src/spec`; names and forms are those of nvme-cli's `id-ctrl` and `id-ns`.
 */
import type { IdentifyController, IdentifyNamespace } from '../../spec/identify.ts';
import type { Register } from '../../spec/registers.ts';
import { amount, type Bits, capability, choice, either } from './bits.ts';

/** `decimal` and `hex` are numbers, `u128` too; `text` is ASCII; `bytes` and `oui` are digits; `uuid` has dashes. */
export type Form = 'decimal' | 'hex' | 'u128' | 'text' | 'bytes' | 'oui' | 'uuid';

export interface Look {
  /** Default: decimal. */
  readonly form?: Form;
  readonly bits?: readonly Bits[];
  /** Shown only if the others say so. */
  readonly when?: (values: Readonly<Record<string, number | Uint8Array>>) => boolean;
}

type Looks<S extends { readonly fields: object }> = Partial<Record<keyof S['fields'], Look>>;

const hex: Look = { form: 'hex' };
const u128: Look = { form: 'u128' };
const flags = (...bits: Bits[]): Look => ({ form: 'hex', bits });
/** Kelvin. */
const temperature = (name: string): Look => ({
  bits: [amount(15, 0, (kelvin) => `${name}: ${kelvin - 273} °C (${kelvin} K)`)],
});
const power = (name: string) => (value: number) => `${name} (${2 ** value})`;

/** Identify Controller. */
export const CONTROLLER: Looks<typeof IdentifyController> = {
  vid: hex,
  ssvid: hex,
  sn: { form: 'text' },
  mn: { form: 'text' },
  fr: { form: 'text' },
  ieee: { form: 'oui' },
  cmic: flags(
    either(3, 'ANA supported', 'ANA not supported'),
    either(2, 'SR-IOV', 'PCI'),
    either(1, 'Multi Controller', 'Single Controller'),
    either(0, 'Multi Port', 'Single Port'),
  ),
  mdts: {
    bits: [
      amount(7, 0, (value) =>
        value === 0 ? 'No limit' : `Maximum transfer: ${2 ** value} memory pages (CAP.MPSMIN)`,
      ),
    ],
  },
  cntlid: hex,
  ver: hex,
  rtd3r: hex,
  rtd3e: hex,
  oaes: flags(
    capability(31, 'Discovery Log Change Notice'),
    capability(27, 'Zone Descriptor Changed Notices'),
    capability(14, 'Endurance Group Event Aggregate Log Page Change Notice'),
    capability(13, 'LBA Status Information Notices'),
    capability(12, 'Predictable Latency Event Aggregate Log Change Notices'),
    capability(11, 'Asymmetric Namespace Access Change Notices'),
    capability(9, 'Firmware Activation Notices'),
    capability(8, 'Namespace Attribute Changed Event'),
  ),
  ctratt: flags(
    capability(19, 'Flexible Data Placement'),
    capability(15, 'Extended LBA Formats'),
    capability(10, 'Multi Domain Subsystem'),
    capability(9, 'UUID List'),
    capability(7, 'Namespace Granularity'),
    capability(6, 'Traffic Based Keep Alive'),
    capability(5, 'Predictable Latency Mode'),
    capability(4, 'Endurance Groups'),
    capability(3, 'Read Recovery Levels'),
    capability(2, 'NVM Sets'),
    capability(1, 'Non-Operational Power State Permissive'),
    capability(0, '128-bit Host Identifier'),
  ),
  rrls: hex,
  bpcap: hex,
  nssl: hex,
  cntrltype: {
    bits: [
      choice(1, 0, {
        0: 'Controller type not reported',
        1: 'I/O Controller',
        2: 'Discovery Controller',
        3: 'Administrative Controller',
      }),
    ],
  },
  fguid: { form: 'uuid' },
  oacs: flags(
    capability(10, 'Lockdown Command and Feature'),
    capability(9, 'Get LBA Status Capability'),
    capability(8, 'Doorbell Buffer Config'),
    capability(7, 'Virtualization Management'),
    capability(6, 'NVMe-MI Send and Receive'),
    capability(5, 'Directives'),
    capability(4, 'Device Self-test'),
    capability(3, 'NS Management and Attachment'),
    capability(2, 'FW Commit and Download'),
    capability(1, 'Format NVM'),
    capability(0, 'Security Send and Receive'),
  ),
  frmw: flags(
    capability(5, 'Multiple FW or Boot Update Detection'),
    capability(4, 'Firmware Activate Without Reset'),
    amount(3, 1, 'Number of Firmware Slots'),
    either(0, 'Firmware Slot 1 Read-Only', 'Firmware Slot 1 Read/Write'),
  ),
  lpa: flags(
    capability(6, 'Telemetry Log Data Area 4'),
    capability(5, 'LID 0x0, Scope of each command in LID 0x5, 0x12, 0x13'),
    capability(4, 'Persistent Event log'),
    capability(3, 'Telemetry host/controller initiated log page'),
    capability(2, 'Extended data for Get Log Page'),
    capability(1, 'Command Effects Log Page'),
    capability(0, 'SMART/Health Log Page per NS'),
  ),
  elpe: { bits: [amount(7, 0, "Error Log Page Entries, 0's based (ELPE)")] },
  npss: { bits: [amount(7, 0, "Number of Power States Support, 0's based (NPSS)")] },
  avscc: hex,
  apsta: flags(capability(0, 'Autonomous Power State Transitions')),
  wctemp: temperature('Warning Composite Temperature Threshold'),
  cctemp: temperature('Critical Composite Temperature Threshold'),
  tnvmcap: u128,
  unvmcap: u128,
  rpmbs: hex,
  hctma: flags(capability(0, 'Host Controlled Thermal Management')),
  sanicap: flags(
    capability(2, 'Overwrite Sanitize Operation'),
    capability(1, 'Block Erase Sanitize Operation'),
    capability(0, 'Crypto Erase Sanitize Operation'),
  ),
  megcap: u128,
  tmpthha: hex,
  sqes: flags(amount(7, 4, power('Max SQ Entry Size')), amount(3, 0, power('Min SQ Entry Size'))),
  cqes: flags(amount(7, 4, power('Max CQ Entry Size')), amount(3, 0, power('Min CQ Entry Size'))),
  oncs: flags(
    capability(8, 'Copy'),
    capability(7, 'Verify'),
    capability(6, 'Timestamp'),
    capability(5, 'Reservations'),
    capability(4, 'Save and Select'),
    capability(3, 'Write Zeroes'),
    capability(2, 'Data Set Management'),
    capability(1, 'Write Uncorrectable'),
    capability(0, 'Compare'),
  ),
  fuses: flags(capability(0, 'Fused Compare and Write')),
  fna: flags(
    either(
      3,
      'Format NVM Broadcast NSID (FFFFFFFFh) Not Supported',
      'Format NVM Broadcast NSID (FFFFFFFFh) Supported',
    ),
    either(
      2,
      'Crypto Erase Supported as part of Secure Erase',
      'Crypto Erase Not Supported as part of Secure Erase',
    ),
    either(
      1,
      'Crypto Erase Applies to All Namespace(s)',
      'Crypto Erase Applies to Single Namespace(s)',
    ),
    either(0, 'Format Applies to All Namespace(s)', 'Format Applies to Single Namespace(s)'),
  ),
  vwc: flags(
    choice(2, 1, {
      0: 'Support for the NSID field set to FFFFFFFFh is not indicated',
      2: 'The Flush command does not support NSID set to FFFFFFFFh',
      3: 'The Flush command supports NSID set to FFFFFFFFh',
    }),
    either(0, 'Volatile Write Cache Present', 'Volatile Write Cache Not Present'),
  ),
  ocfs: hex,
  sgls: flags(
    amount(15, 8, 'SGL Descriptor Threshold'),
    choice(1, 0, {
      0: 'Scatter-Gather Lists Not Supported',
      1: 'Scatter-Gather Lists Supported. No Dword alignment required.',
      2: 'Scatter-Gather Lists Supported. Dword alignment required.',
    }),
  ),
  maxdna: u128,
  subnqn: { form: 'text' },
  fcatt: hex,
};

/** NSFEAT bit 4: NPWG, NPWA, NPDG, NPDA and NOWS mean something. */
const optimal: Look = { when: ({ nsfeat }) => typeof nsfeat === 'number' && (nsfeat & 16) !== 0 };

/** Identify Namespace. */
export const NAMESPACE: Looks<typeof IdentifyNamespace> = {
  nsze: hex,
  ncap: hex,
  nuse: hex,
  nsfeat: flags(
    capability(4, 'NPWG, NPWA, NPDG, NPDA, and NOWS'),
    either(
      3,
      'NGUID and EUI64 fields if non-zero, Never Reused',
      'NGUID and EUI64 fields if non-zero, Reused',
    ),
    capability(2, 'Deallocated or Unwritten Logical Block error'),
    either(1, 'Namespace uses NAWUN, NAWUPF, and NACWU', 'Namespace uses AWUN, AWUPF, and ACWU'),
    capability(0, 'Thin Provisioning'),
  ),
  flbas: flags(
    amount(6, 5, 'Most significant 2 bits of Current LBA Format Selected'),
    either(
      4,
      'Metadata Transferred at End of Data LBA',
      'Metadata Transferred in Separate Contiguous Buffer',
    ),
    amount(3, 0, 'Least significant 4 bits of Current LBA Format Selected'),
  ),
  mc: flags(
    capability(1, 'Metadata Pointer'),
    capability(0, 'Metadata as Part of Extended Data LBA'),
  ),
  dpc: flags(
    capability(4, 'Protection Information Transferred as Last Bytes of Metadata'),
    capability(3, 'Protection Information Transferred as First Bytes of Metadata'),
    capability(2, 'Protection Information Type 3'),
    capability(1, 'Protection Information Type 2'),
    capability(0, 'Protection Information Type 1'),
  ),
  dps: flags(
    either(
      3,
      'Protection Information is Transferred as First Bytes of Metadata',
      'Protection Information is Transferred as Last Bytes of Metadata',
    ),
    choice(2, 0, {
      0: 'Protection Information Disabled',
      1: 'Protection Information Type 1',
      2: 'Protection Information Type 2',
      3: 'Protection Information Type 3',
    }),
  ),
  nmic: flags(either(0, 'Namespace Multipath Capable', 'Namespace Multipath Not Capable')),
  rescap: flags(
    capability(6, 'Exclusive Access - All Registrants'),
    capability(5, 'Write Exclusive - All Registrants'),
    capability(4, 'Exclusive Access - Registrants Only'),
    capability(3, 'Write Exclusive - Registrants Only'),
    capability(2, 'Exclusive Access'),
    capability(1, 'Write Exclusive'),
    capability(0, 'Persist Through Power Loss'),
  ),
  fpi: flags(capability(7, 'Format Progress Indicator')),
  dlfeat: {
    bits: [
      either(
        4,
        'Guard Field of Deallocated Logical Blocks is set to CRC of The Value Read',
        'Guard Field of Deallocated Logical Blocks is set to 0xFFFF',
      ),
      either(
        3,
        'Deallocate Bit in the Write Zeroes Command is Supported',
        'Deallocate Bit in the Write Zeroes Command is Not Supported',
      ),
      choice(2, 0, {
        0: 'Bytes Read From a Deallocated Logical Block are Not Reported',
        1: 'Bytes Read From a Deallocated Logical Block are 0x00',
        2: 'Bytes Read From a Deallocated Logical Block are 0xFF',
      }),
    ],
  },
  nvmcap: u128,
  npwg: optimal,
  npwa: optimal,
  npdg: optimal,
  npda: optimal,
  nows: optimal,
  nsattr: {
    bits: [either(0, 'Namespace Write Protected', 'Namespace Not Write Protected')],
  },
  nguid: { form: 'bytes' },
  eui64: { form: 'bytes' },
};

/** Controller registers. NVMe Base 2.1 §3.1.4. */
export const REGISTERS: Looks<typeof Register> = {
  cap: flags(
    capability(60, 'Controller Ready Independent of Media'),
    capability(59, 'Controller Ready With Media'),
    amount(55, 52, (value) => `Memory Page Size Maximum (${2 ** (12 + value)} bytes)`),
    amount(51, 48, (value) => `Memory Page Size Minimum (${2 ** (12 + value)} bytes)`),
    capability(45, 'Boot Partition'),
    capability(44, 'No I/O Command Set'),
    capability(43, 'Identify I/O Command Set Data Structure'),
    capability(37, 'NVM Command Set'),
    capability(36, 'NVM Subsystem Reset'),
    amount(35, 32, (value) => `Doorbell Stride (${4 << value} bytes)`),
    amount(31, 24, (value) => `Timeout (${value * 500} ms)`),
    amount(18, 17, 'Arbitration Mechanism'),
    either(16, 'Contiguous Queues Required', 'Contiguous Queues Not Required'),
    amount(15, 0, (value) => `Maximum Queue Entries (${value + 1})`),
  ),
  vs: flags(
    amount(31, 16, 'Major Version'),
    amount(15, 8, 'Minor Version'),
    amount(7, 0, 'Tertiary Version'),
  ),
  cc: flags(
    amount(23, 20, power('I/O Completion Queue Entry Size')),
    amount(19, 16, power('I/O Submission Queue Entry Size')),
    choice(15, 14, { 0: 'No shutdown notification', 1: 'Normal shutdown', 2: 'Abrupt shutdown' }),
    amount(13, 11, 'Arbitration Mechanism Selected'),
    amount(10, 7, (value) => `Memory Page Size (${2 ** (12 + value)} bytes)`),
    choice(6, 4, {
      0: 'NVM Command Set',
      6: 'All Supported I/O Command Sets',
      7: 'Admin Command Set only',
    }),
    either(0, 'Enabled', 'Disabled'),
  ),
  csts: flags(
    either(5, 'Processing Paused', 'Processing Not Paused'),
    either(4, 'NVM Subsystem Reset Occurred', 'NVM Subsystem Reset Not Occurred'),
    choice(3, 2, {
      0: 'Normal operation',
      1: 'Shutdown processing occurring',
      2: 'Shutdown processing complete',
    }),
    either(1, 'Controller Fatal Status', 'No Controller Fatal Status'),
    either(0, 'Ready', 'Not Ready'),
  ),
  aqa: flags(
    amount(27, 16, (value) => `Admin Completion Queue Size (${value + 1})`),
    amount(11, 0, (value) => `Admin Submission Queue Size (${value + 1})`),
  ),
  crto: flags(
    amount(31, 16, (value) => `Controller Ready Independent of Media Timeout (${value * 500} ms)`),
    amount(15, 0, (value) => `Controller Ready With Media Timeout (${value * 500} ms)`),
  ),
};
