/** The structures of vfio-user against sizes and offsets written down from the protocol's text. */
import t from 'tap';
import * as spec from '../../src/spec/vfio-user.ts';
import { type Fields, Struct } from '../../src/util/struct.ts';

const LAYOUTS: Record<
  string,
  [size: number, offsets: Record<string, [offset: number, width: number]>]
> = {
  VfioUserHeader: [
    16,
    { messageId: [0, 2], command: [2, 2], size: [4, 4], flags: [8, 4], error: [12, 4] },
  ],
  VersionPayload: [4, { major: [0, 2], minor: [2, 2] }],
  DmaMap: [32, { argsz: [0, 4], flags: [4, 4], offset: [8, 8], address: [16, 8], size: [24, 8] }],
  DmaUnmap: [24, { argsz: [0, 4], flags: [4, 4], address: [8, 8], size: [16, 8] }],
  DeviceInfo: [16, { argsz: [0, 4], flags: [4, 4], numRegions: [8, 4], numIrqs: [12, 4] }],
  RegionInfo: [
    32,
    {
      argsz: [0, 4],
      flags: [4, 4],
      index: [8, 4],
      capOffset: [12, 4],
      size: [16, 8],
      offset: [24, 8],
    },
  ],
  RegionCap: [8, { id: [0, 2], version: [2, 2], next: [4, 4] }],
  SparseMmapCap: [16, { id: [0, 2], version: [2, 2], next: [4, 4], nrAreas: [8, 4] }],
  SparseMmapArea: [16, { offset: [0, 8], size: [8, 8] }],
  RegionIoFds: [16, { argsz: [0, 4], flags: [4, 4], index: [8, 4], count: [12, 4] }],
  IrqInfo: [16, { argsz: [0, 4], flags: [4, 4], index: [8, 4], count: [12, 4] }],
  IrqSet: [20, { argsz: [0, 4], flags: [4, 4], index: [8, 4], start: [12, 4], count: [16, 4] }],
  RegionAccess: [16, { offset: [0, 8], region: [8, 4], count: [12, 4] }],
  RegionWriteMulti: [8, { count: [0, 8] }],
  RegionWriteEntry: [24, { offset: [0, 8], region: [8, 4], count: [12, 4], data: [16, 8] }],
  DmaAccess: [16, { address: [0, 8], count: [8, 8] }],
  DmaAccessShort: [12, { address: [0, 8], count: [8, 4] }],
  DmaLoggingControl: [16, { pageSize: [0, 8], numRanges: [8, 4] }],
  DmaLoggingReport: [24, { iova: [0, 8], length: [8, 8], pageSize: [16, 8] }],
  DeviceFeature: [8, { argsz: [0, 4], flags: [4, 4] }],
  MigData: [8, { argsz: [0, 4], size: [4, 4] }],
};

const structs = Object.entries<unknown>(spec).filter(([, value]) => value instanceof Struct);
t.same(
  structs.map(([name]) => name).sort(),
  Object.keys(LAYOUTS).sort(),
  'every structure is checked',
);

for (const [name, value] of structs) {
  const layout = value as Struct<Fields>;
  const [size, offsets] = LAYOUTS[name];
  t.equal(layout.name, name);
  t.equal(layout.size, size, `${name} has ${size} bytes`);
  const declared = Object.entries(layout.fields);
  const found = Object.fromEntries(declared.map(([key, f]) => [key, [f.offset, f.width]]));
  t.same(found, offsets, `fields of ${name}`);
}

t.same(
  Object.values(spec.VfioUserCommand),
  Array.from({ length: 18 }, (_, i) => i + 1),
  'commands are numbered 1 to 18',
);
