/** The dashboard in Chromium: what it shows is what the target counts. */

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { becomes, screenshot } from '../helpers/browser.ts';
import { Host, live, openDashboard, snapshotOf, withBrowser } from '../helpers/dashboard.ts';
import type { TargetProcess } from '../helpers/target-process.ts';

const BLOCKS = 65536;

/** Two VMs: `busy` with a RAM disk and a null disk, `calm` with a RAM disk. */
async function twoVms(target: TargetProcess): Promise<{ busy: string; calm: string }> {
  await target.call('nvmf_create_transport', { trtype: 'VFIOUSER' });
  const sockets: Record<string, string> = {};
  for (const [name, bdevs] of [
    ['busy', ['ram', 'null']],
    ['calm', ['other']],
  ] as const) {
    const nqn = `nqn.2026-11.io.doorbell:${name}`;
    await target.call('nvmf_create_subsystem', { nqn, allow_any_host: true });
    for (const bdev of bdevs) {
      const kind = bdev === 'null' ? 'null' : 'malloc';
      const geometry = { name: bdev, block_size: 512, num_blocks: BLOCKS };
      await target.call(`bdev_${kind}_create`, geometry);
      await target.call('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: bdev } });
    }
    const traddr = join(target.folder, name);
    mkdirSync(traddr);
    const listen_address = { trtype: 'VFIOUSER', traddr };
    await target.call('nvmf_subsystem_add_listener', { nqn, listen_address });
    sockets[name] = join(traddr, 'cntrl');
  }
  return sockets as { busy: string; calm: string };
}

/** The figure in a cell of the open row of a namespace, without the spaces between digits. */
const cell = (nsid: number, index: number): string =>
  `document.querySelector('[data-nsid="${nsid}"]').children[${index}].textContent.replace(/\\s/g, '')`;
const READS = 7;
const WRITES = 8;

withBrowser((browser) => {
  t.test('without VMs it says how to begin', async (t) => {
    const dashboard = await openDashboard(t, browser);
    const { page, complaints } = dashboard;
    await live(dashboard);
    await screenshot(page, 'empty');
    t.equal(await page.locator('#tile-vms').textContent(), '0');
    t.match(await page.locator('#vms .empty').last().textContent(), /A VM needs a disk/);
    t.equal(await page.locator('#alerts').textContent(), 'All is well.');
    await page.getByRole('button', { name: '1. Create a disk' }).click();
    t.ok(await page.getByRole('heading', { name: 'New disk' }).isVisible());
    t.strictSame(complaints, []);
  });

  t.test('figures follow the load, and totals are those of the target', async (t) => {
    let sockets = { busy: '', calm: '' };
    const dashboard = await openDashboard(t, browser, async (target) => {
      sockets = await twoVms(target);
    });
    const { page, target, complaints } = dashboard;
    await live(dashboard);
    const host = await Host.connect(t, sockets.busy);
    await page.getByRole('button', { name: 'Details of busy' }).click();

    const seen = (async () => {
      const iops = `document.querySelector('#tile-iops').textContent`;
      await becomes(page, 'IOPS are shown', `${iops} !== '0' && ${iops} !== '–'`);
      await becomes(
        page,
        'latency is shown',
        `/\\d/.test(document.querySelector('#tile-latency').textContent)`,
      );
      await becomes(
        page,
        'throughput is shown',
        `/[1-9]/.test(document.querySelector('#tile-throughput').textContent)`,
      );
      await becomes(
        page,
        'some seconds are drawn',
        `document.querySelectorAll('.chart canvas').length >= 4`,
      );
      await screenshot(page, 'load');
      t.notMatch(await page.locator('tr', { hasText: 'busy' }).first().textContent(), /waiting/);
      t.match(await page.locator('tr', { hasText: 'calm' }).first().textContent(), /waiting/);
    })();
    const done = await host.load(1, seen);
    await seen;
    t.equal(await host.read(2, 5), 0);

    await becomes(page, 'reads of namespace 1', `${cell(1, READS)} === '${done.reads}'`);
    await becomes(page, 'writes of namespace 1', `${cell(1, WRITES)} === '${done.writes}'`);
    await becomes(page, 'reads of namespace 2', `${cell(2, READS)} === '1'`);
    const { bdevs } = await snapshotOf(target);
    const counted = Object.fromEntries(bdevs.map(({ name, io }) => [name, io]));
    t.match(counted.ram, {
      readOps: done.reads,
      writeOps: done.writes,
      readBytes: done.reads * 512,
    });
    t.match(counted.null, { readOps: 1, writeOps: 0 });
    const total = `document.querySelector('.tile').title.replace(/\\s(?=\\d)/g, '')`;
    const commands = done.reads + done.writes + 1;
    await becomes(page, 'all commands', `${total}.startsWith('${commands} commands')`);

    await page.getByRole('button', { name: 'Details of ram' }).click();
    const facts = ((await page.locator('#disks .facts').textContent()) ?? '').replaceAll(
      '\u202f',
      '',
    );
    t.match(facts, `read ${done.reads} times`);
    t.match(facts, `written ${done.writes} times`);
    t.strictSame(complaints, []);
  });

  t.test(
    'the charts show one VM, one namespace or one disk, over the time that is chosen',
    async (t) => {
      let sockets = { busy: '', calm: '' };
      const dashboard = await openDashboard(t, browser, async (target) => {
        sockets = await twoVms(target);
      });
      const { page, complaints } = dashboard;
      await live(dashboard);
      const [busy, calm] = [
        await Host.connect(t, sockets.busy),
        await Host.connect(t, sockets.calm),
      ];
      const options = await page.locator('#scope option').allTextContents();
      t.strictSame(options, [
        'all VMs',
        'busy',
        'busy, namespace 1 (ram)',
        'busy, namespace 2 (null)',
        'calm',
        'calm, namespace 1 (other)',
        'disk ram',
        'disk null',
        'disk other',
      ]);
      const reads = `document.querySelector('.chart .value').textContent`;
      const seen = (async () => {
        for (const label of ['all VMs', 'busy', 'busy, namespace 1 (ram)', 'disk ram']) {
          await page.locator('#scope').selectOption({ label });
          await becomes(page, `reads of ${label}`, `!['0', '–'].includes(${reads})`);
        }
        for (const label of ['busy, namespace 2 (null)', 'calm', 'disk other']) {
          await page.locator('#scope').selectOption({ label });
          await becomes(page, `no reads of ${label}`, `${reads} === '0'`);
        }
      })();
      await busy.load(1, seen);
      await seen;
      t.equal(await calm.read(1, 0), 0);
      for (const name of ['5 min', '10 min', '1 min']) {
        const button = page.getByRole('button', { name, exact: true });
        await button.click();
        t.equal(await button.getAttribute('aria-pressed'), 'true');
      }
      t.equal(await page.locator('#range [aria-pressed="true"]').count(), 1);
      t.strictSame(complaints, []);
    },
  );

  t.test('I/O errors and lost guests are told', async (t) => {
    let sockets = { busy: '', calm: '' };
    const dashboard = await openDashboard(t, browser, async (target) => {
      sockets = await twoVms(target);
    });
    const { page } = dashboard;
    await live(dashboard);
    const host = await Host.connect(t, sockets.busy);
    const told = becomes(
      page,
      'the error is told',
      `document.querySelector('#alerts').textContent.includes('LBA Out of Range')`,
    );
    let over = false;
    void told.finally(() => {
      over = true;
    });
    while (!over) {
      const status = await host.read(1, BLOCKS);
      if ((status & 0x7ff) !== 0x80) {
        throw new Error(`status ${status} of a read past the end`);
      }
    }
    await told;
    t.match(
      await page.locator('#alerts').textContent(),
      /VM busy, disk ram: .* in the last minute, LBA Out of Range \(0x080\)/,
    );
    await screenshot(page, 'alert');
    await host.client.close();
    await becomes(
      page,
      'the VM is waited for',
      `document.querySelector('#vms tbody tr .state').textContent === 'waiting'`,
    );
    await becomes(
      page,
      'the event is listed',
      `document.querySelector('.events').textContent.includes('VM busy disconnected')`,
    );
  });
});
