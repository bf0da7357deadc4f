/** The dashboard in Chromium: disks and VMs are made, changed and deleted from it, and what goes wrong is said where it happened. */
import { existsSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Locator, Page } from 'playwright-core';
import t from 'tap';
import { becomes, screenshot } from '../helpers/browser.ts';
import { Host, live, openDashboard, snapshotOf, withBrowser } from '../helpers/dashboard.ts';

/** Of a DOM element. */
interface Matching {
  matches(selector: string): boolean;
}

const MIB = 1024 * 1024;

/** Opens a dialog, fills fields by their labels, and sends it. */
async function fill(page: Page, open: Locator, fields: Record<string, string>): Promise<Locator> {
  await open.click();
  const dialog = page.getByRole('dialog');
  for (const [label, value] of Object.entries(fields)) {
    const field = dialog.getByLabel(label, { exact: true });
    if ((await field.evaluate((element: { tagName: string }) => element.tagName)) === 'SELECT') {
      await field.selectOption({ label: value });
    } else {
      await field.fill(value);
    }
  }
  return dialog;
}

const button = (page: Page, name: string): Locator =>
  page.getByRole('button', { name, exact: true });

withBrowser((browser) => {
  t.test('a disk and a VM are created, used, and deleted', async (t) => {
    const dashboard = await openDashboard(t, browser);
    const { page, target, complaints } = dashboard;
    await live(dashboard);
    const filename = join(target.folder, 'disk0.img');
    let dialog = await fill(page, button(page, 'New disk'), {
      Kind: 'New file, which takes space as it is written',
      Name: 'disk0',
      Path: filename,
      Size: '64M',
    });
    await screenshot(page, 'new-disk');
    await button(page, 'Create disk').click();
    await dialog.waitFor({ state: 'detached' });
    t.equal(statSync(filename).size, 64 * MIB);
    t.equal(statSync(filename).mode & 0o777, 0o600);

    // The page has heard of it before it can be chosen.
    await page.getByRole('button', { name: 'Details of disk0' }).waitFor();
    const folder = join(target.folder, 'new', 'vm0');
    dialog = await fill(page, button(page, 'New VM'), {
      Name: 'vm0',
      'Folder of the socket': folder,
    });
    await dialog.getByLabel('disk0, 64.0').check();
    await screenshot(page, 'new-vm');
    await button(page, 'Create VM').click();
    await page.getByRole('heading', { name: 'Start vm0' }).waitFor();
    const socket = join(folder, 'cntrl');
    const commands = await page.locator('pre').allTextContents();
    t.equal(commands.length, 2);
    t.match(
      commands[0],
      `-device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"${socket}"}}'`,
    );
    t.match(commands[1], `--user-device 'socket=${socket}'`.replaceAll(`'`, ''));
    await screenshot(page, 'command-line');
    await button(page, 'Close').click();

    const host = await Host.connect(t, socket);
    host.buffer.fill(0xd5);
    t.equal(await host.write(1, 9), 0);
    host.buffer.fill(0);
    t.equal(await host.read(1, 9), 0);
    t.ok(host.buffer.subarray(0, 512).every((byte) => byte === 0xd5));
    await becomes(
      page,
      'it runs',
      `document.querySelector('#vms .state')?.textContent === 'running'`,
    );
    await page.getByRole('button', { name: 'Details of vm0' }).click();
    await becomes(page, 'its queue is shown', `document.querySelector('[data-qid="1"]') !== null`);
    await screenshot(page, 'vm-detail');

    await button(page, 'Delete VM').click();
    dialog = page.getByRole('dialog');
    const confirm = dialog.getByRole('button', { name: 'Delete VM' });
    t.ok(await confirm.isDisabled());
    await dialog.getByRole('textbox').fill('vm');
    t.ok(await confirm.isDisabled());
    await dialog.getByRole('textbox').fill('vm0');
    await screenshot(page, 'delete');
    await confirm.click();
    await dialog.waitFor({ state: 'detached' });
    t.notOk(existsSync(socket));
    await t.rejects(host.read(1, 0));
    await becomes(
      page,
      'the row is gone',
      `document.querySelector('#vms tbody').children.length === 0`,
    );

    await page.getByRole('button', { name: 'Details of disk0' }).click();
    await button(page, 'Delete disk').click();
    await dialog.getByRole('textbox').fill('disk0');
    await dialog.getByRole('button', { name: 'Delete disk' }).click();
    await dialog.waitFor({ state: 'detached' });
    const { bdevs, subsystems } = await snapshotOf(target);
    t.strictSame([bdevs, subsystems], [[], []]);
    t.equal(statSync(filename).size, 64 * MIB, 'the file stays');
    t.strictSame(complaints, []);
  });

  t.test('namespaces come and go, disks get other sizes and limits', async (t) => {
    const dashboard = await openDashboard(t, browser, async (target) => {
      await target.call('bdev_null_create', { name: 'a', block_size: 512, num_blocks: 2048 });
      await target.call('bdev_malloc_create', { name: 'b', block_size: 4096, num_blocks: 256 });
      writeFileSync(join(target.folder, 'c.img'), '');
      truncateSync(join(target.folder, 'c.img'), MIB);
      await target.call('bdev_aio_create', { name: 'c', filename: join(target.folder, 'c.img') });
      await target.serve('a');
    });
    const { page, target, complaints } = dashboard;
    await live(dashboard);
    const dialog = page.getByRole('dialog');
    await page.getByRole('button', { name: 'Details of test' }).click();
    await fill(page, button(page, 'Add disk'), {
      Disk: 'b, 1.00\u202fMiB',
      'Namespace ID (optional)': '7',
    });
    await dialog.getByRole('button', { name: 'Add disk' }).click();
    await dialog.waitFor({ state: 'detached' });
    await page.locator('[data-nsid="7"]').waitFor();
    const nsids = async () =>
      (await snapshotOf(target)).subsystems[0].namespaces.map(({ nsid }) => nsid);
    t.strictSame(await nsids(), [1, 7]);

    await page.getByRole('button', { name: 'Remove namespace 1, disk a' }).click();
    await dialog.getByRole('textbox').fill('a');
    await dialog.getByRole('button', { name: 'Remove' }).click();
    await page.locator('[data-nsid="1"]').waitFor({ state: 'detached' });
    t.strictSame(await nsids(), [7]);

    const size = async (name: string) => {
      const bdev = (await snapshotOf(target)).bdevs.find((candidate) => candidate.name === name)!;
      return bdev.blockSize * bdev.numBlocks;
    };
    await page.getByRole('button', { name: 'Details of a', exact: true }).click();
    await fill(page, button(page, 'Resize'), { 'New size': '3 MiB' });
    await dialog.getByRole('button', { name: 'Resize' }).click();
    await dialog.waitFor({ state: 'detached' });
    t.equal(await size('a'), 3 * MIB);

    await fill(page, button(page, 'Limits'), {
      'IOPS (optional)': '5000',
      'of writes, MiB/s (optional)': '20',
    });
    await screenshot(page, 'limits');
    await dialog.getByRole('button', { name: 'Set limits' }).click();
    await dialog.waitFor({ state: 'detached' });
    const limits = async () =>
      (
        (await target.call('bdev_get_bdevs', { name: 'a' })) as { assigned_rate_limits: object }[]
      )[0].assigned_rate_limits;
    t.match(await limits(), { rw_ios_per_sec: 5000, rw_mbytes_per_sec: 0, w_mbytes_per_sec: 20 });
    await button(page, 'Limits').click();
    t.equal(await dialog.getByLabel('IOPS').inputValue(), '5000');
    await dialog.getByLabel('IOPS').fill('');
    await dialog.getByRole('button', { name: 'Set limits' }).click();
    await dialog.waitFor({ state: 'detached' });
    t.match(await limits(), { rw_ios_per_sec: 0, w_mbytes_per_sec: 20 });
    await page.getByRole('button', { name: 'Details of a', exact: true }).click();

    truncateSync(join(target.folder, 'c.img'), 5 * MIB);
    await page.getByRole('button', { name: 'Details of c', exact: true }).click();
    await button(page, 'Resize').click();
    await dialog.getByRole('button', { name: 'Take over the size' }).click();
    await dialog.waitFor({ state: 'detached' });
    t.equal(await size('c'), 5 * MIB);
    t.strictSame(complaints, []);
  });

  t.test('errors are said at the field they are about, and leave nothing behind', async (t) => {
    const dashboard = await openDashboard(t, browser, async (target) => {
      await target.call('bdev_null_create', { name: 'free', block_size: 512, num_blocks: 2048 });
      await target.serve();
    });
    const { page, target, complaints } = dashboard;
    await live(dashboard);
    const before = await snapshotOf(target);
    const dialog = page.getByRole('dialog');
    const problem = (label: string) =>
      dialog.locator('.field', { hasText: label }).locator('.problem').textContent();
    const isFocused = (label: string) =>
      dialog
        .getByLabel(label, { exact: true })
        .evaluate((element: Matching) => element.matches(':focus'));

    const fields = { Kind: 'File or block device that is there', Name: 'x', Path: '/no/such/file' };
    await fill(page, button(page, 'New disk'), fields);
    await button(page, 'Create disk').click();
    await dialog.locator('.problem:not(:empty)').waitFor();
    await screenshot(page, 'error');
    t.match(await problem('Path'), /No such file or directory/);
    await dialog.getByLabel('Name').fill('');
    await button(page, 'Create disk').click();
    t.equal(await problem('Name'), 'This is needed.');
    t.ok(await isFocused('Name'));
    await dialog.getByLabel('Name').fill('x');
    await dialog.getByLabel('Kind').selectOption({ label: 'RAM: gone when the target stops' });
    await dialog.getByLabel('Size', { exact: true }).fill('many');
    await button(page, 'Create disk').click();
    await becomes(
      page,
      'the size is not understood',
      `/A size is a number with a unit/.test(document.querySelector('[data-bad] .problem')?.textContent)`,
    );
    await dialog.getByLabel('Size', { exact: true }).fill('1000');
    await button(page, 'Create disk').click();
    await becomes(
      page,
      'the size is refused',
      `/multiple of 512/.test(document.querySelector('[data-bad] .problem')?.textContent)`,
    );
    await dialog.getByLabel('Name').fill('free');
    await dialog.getByLabel('Size', { exact: true }).fill('1M');
    await button(page, 'Create disk').click();
    await becomes(
      page,
      'the name is taken',
      `/exists/.test(document.querySelector('[data-bad] .problem')?.textContent)`,
    );
    const unused = join(target.folder, 'unused.img');
    await dialog.getByLabel('Kind').selectOption({ index: 0 });
    await dialog.getByLabel('Path').fill(unused);
    await button(page, 'Create disk').click();
    await becomes(
      page,
      'it is said again',
      `/exists/.test(document.querySelector('[data-bad] .problem')?.textContent)`,
    );
    t.notOk(existsSync(unused), 'no file was made for a disk that cannot be');
    await page.keyboard.press('Escape');
    await dialog.waitFor({ state: 'detached' });

    // The folder is a file: the subsystem that was made already goes again.
    writeFileSync(join(target.folder, 'file'), '');
    await fill(page, button(page, 'New VM'), {
      Name: 'half',
      'Folder of the socket': join(target.folder, 'file'),
    });
    await dialog.getByLabel('free, 1.00').check();
    await button(page, 'Create VM').click();
    await dialog.locator('.problem:not(:empty), .failure:not(:empty)').waitFor();
    t.match(await dialog.textContent(), /File exists|Not a directory/);
    await dialog.getByLabel('Folder of the socket').fill('relative');
    await button(page, 'Create VM').click();
    await becomes(
      page,
      'the folder is refused',
      `/absolute/.test(document.querySelector('[data-bad] .problem')?.textContent)`,
    );
    t.ok(await isFocused('Folder of the socket'));
    await dialog.getByLabel('Name').fill('nqn.nonsense');
    await button(page, 'Create VM').click();
    await becomes(
      page,
      'the name is refused',
      `/YYYY-MM/.test(document.querySelector('[data-bad] .problem')?.textContent)`,
    );
    await button(page, 'Cancel').click();
    const after = await snapshotOf(target);
    t.strictSame(
      [after.bdevs.map(({ name }) => name), after.subsystems.map(({ nqn }) => nqn)],
      [before.bdevs.map(({ name }) => name), before.subsystems.map(({ nqn }) => nqn)],
    );
    t.equal(after.bdevs[0].claimedBy, undefined);
    t.strictSame(complaints, []);
  });
});
