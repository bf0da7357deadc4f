/** `doorbell identify`'s text against what nvme-cli 2.13 printed in a guest for a controller with the same data. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { controllerText, namespaceText, overviewText } from '../../src/cli/identify/print.ts';
import type { IdentifyReport, NamespaceReport } from '../../src/cli/identify/read.ts';
import { smartText } from '../../src/cli/identify/smart.ts';
import {
  IdentifyController,
  IdentifyNamespace,
  LbaFormat,
  PowerState,
} from '../../src/spec/identify.ts';
import { SmartLog } from '../../src/spec/logs.ts';
import { PciHeader } from '../../src/spec/pci.ts';

/** From dist/test/unit. */
const fixture = (name: string) =>
  readFileSync(
    fileURLToPath(new URL(`../../../test/fixtures/${name}.txt`, import.meta.url)),
    'utf8',
  )
    .trimEnd()
    .split('\n');

const ascii = (text: string) => Uint8Array.from(Buffer.from(text, 'latin1'));
const hex = (text: string) => Uint8Array.from(Buffer.from(text, 'hex'));
const viewOf = (data: Uint8Array) => new DataView(data.buffer);
const NGUID = 'af04fc77c4535e8da0e442fd7147c2f9';

const controller = IdentifyController.read(
  viewOf(
    IdentifyController.encode({
      vid: 0x4e58,
      ssvid: 0x4e58,
      sn: ascii('DBAF04FC77C4535E8D  '),
      mn: ascii('Doorbell Controller'.padEnd(40)),
      fr: ascii('0.1     '),
      rab: 6,
      ieee: hex('8d6b50'),
      mdts: 8,
      cntlid: 1,
      ver: 0x20000,
      rtd3e: 60_000_000,
      oaes: 0x100,
      cntrltype: 1,
      acl: 3,
      aerl: 3,
      frmw: 3,
      lpa: 6,
      elpe: 63,
      wctemp: 343,
      cctemp: 358,
      kas: 100,
      sqes: 0x66,
      cqes: 0x44,
      maxcmd: 1024,
      nn: 32,
      vwc: 5,
      mnan: 32,
      subnqn: ascii('nqn.2026-11.io.doorbell:disk\0'),
      psds: PowerState.encode({ mp: 2500 }),
    }),
  ),
);
const namespace: NamespaceReport = {
  nsid: 1,
  identify: IdentifyNamespace.read(
    viewOf(
      IdentifyNamespace.encode({
        nsze: 0x20000,
        ncap: 0x20000,
        nuse: 0x20000,
        nguid: hex(NGUID),
        lbafs: LbaFormat.encode({ ds: 9 }),
      }),
    ),
  ),
  descriptors: [
    { nidt: 2, value: hex(NGUID) },
    { nidt: 3, value: hex(NGUID) },
    { nidt: 4, value: hex('00') },
  ],
};
const report: IdentifyReport = {
  socket: '/run/vm0/cntrl',
  pci: PciHeader.read(viewOf(PciHeader.encode({ vendorId: 0x4e58, deviceId: 1, classCode: 1 }))),
  msixVectors: 65,
  registers: new Map([['cap', 0x800_0020_3c01_03ffn]]),
  controller,
  nsids: [1],
  namespaces: [namespace],
  smart: undefined,
};

t.test('controller: the same lines', async (t) => {
  const ours = controllerText(report, false);
  const theirs = fixture('nvme-id-ctrl');
  const power = theirs.findIndex((line) => line.startsWith('ps '));
  t.strictSame(ours.slice(0, power + 1), theirs.slice(0, power + 1));
  t.equal(ours.length, power + 2, 'one power state');
});

t.test('controller: what we say of a bit is what nvme-cli says', async (t) => {
  const theirs = new Set(fixture('nvme-id-ctrl-human'));
  const ours = controllerText(report, true).filter((line) => line.startsWith('  ['));
  t.ok(ours.length > 70);
  // These nvme-cli lays out in ways of their own, or not at all.
  const own = /\t(Maximum transfer|Error Log|Number of Power|Warning|Critical|SGL|Scatter)/;
  for (const line of ours.filter((line) => !own.test(line))) {
    t.ok(theirs.has(line), line);
  }
});

t.test('namespace', async (t) => {
  const untabbed = (lines: string[]) => lines.map((line) => line.replace('nsattr\t', 'nsattr  '));
  t.strictSame(
    namespaceText(namespace, false),
    untabbed(fixture('nvme-id-ns')).filter((line) => line !== ''),
  );
  const theirs = new Set(fixture('nvme-id-ns-human'));
  const ours = namespaceText(namespace, true).filter((line) => /^ {2}\[|^LBA/.test(line));
  t.ok(ours.length > 25);
  const own = /NPWG|Bytes Read/;
  for (const line of ours.filter((line) => !own.test(line))) {
    t.ok(theirs.has(line), line);
  }
});

t.test('smart log', async (t) => {
  const smart = SmartLog.read(
    viewOf(
      SmartLog.encode({
        availableSpare: 100,
        availableSpareThreshold: 10,
        dataUnitsRead: 1,
        hostReads: 4,
        powerCycles: 1,
      }),
    ),
  );
  const table = (lines: string[]) => lines.slice(1).map((line) => line.split(/\s*:\s*/));
  t.strictSame(
    table(smartText({ ...smart, compositeTemperature: 313 })),
    table(fixture('nvme-smart-log')),
  );
  t.match(smartText(undefined)[0], /has none/);
});

t.test('overview', async (t) => {
  const text = overviewText(report).join('\n');
  t.match(text, /^pci {6}: \[4e58:0001\]/m);
  t.match(text, /^cap {6}: 0x80000203c0103ff$/m, 'all 64 bits');
  t.match(text, /^ +1 +64 MiB {2}131072 blocks of 512 B {2}af04fc77-c453-5e8d-/m);
});

t.test('a name cannot speak to the terminal', async (t) => {
  const bad = { ...controller, mn: ascii('\u001b]0;hi\u0007\u009b2J'.padEnd(40)) };
  const [line] = controllerText({ ...report, controller: bad }, false).filter((line) =>
    line.startsWith('mn'),
  );
  t.match(line, /^mn {8}: \?\]0;hi\?\?2J *$/);
});
