/** The dashboard in Chromium: what it does when the target goes, names are hostile, the screen is small, or it stays open for days. */
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { CDPSession, Page } from 'playwright-core';
import t, { type Test } from 'tap';
import { becomes, openPage, screenshot } from '../helpers/browser.ts';
import { live, openDashboard, snapshotOf, withBrowser } from '../helpers/dashboard.ts';
import type { TargetProcess } from '../helpers/target-process.ts';

const MIB = 1024 * 1024;
const TOKEN = 'correct-horse-battery-staple';
/** Names that would do something if they became HTML, and one that would mirror the text after it. */
const HOSTILE = [
  `<img src=x onerror="window.hacked=1">`,
  `"><script>window.hacked=1</script>`,
  `' onmouseover='window.hacked=1`,
  `\u202e\u2066gnp.exe`,
  `__proto__`,
];

async function hostileVms(target: TargetProcess): Promise<void> {
  await target.call('nvmf_create_transport', { trtype: 'VFIOUSER' });
  for (const [i, name] of HOSTILE.entries()) {
    const nqn = `nqn.2026-11.io.doorbell:${name}`;
    await target.call('nvmf_create_subsystem', {
      nqn,
      allow_any_host: true,
      serial_number: '<b>x</b>',
      model_number: `<i>'"`,
    });
    await target.call('bdev_null_create', { name, block_size: 512, num_blocks: 2048 });
    await target.call('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: name } });
    const traddr = join(target.folder, `<u>${i}`);
    mkdirSync(traddr);
    const listen_address = { trtype: 'VFIOUSER', traddr };
    await target.call('nvmf_subsystem_add_listener', { nqn, listen_address });
  }
}

const scrolls = (page: Page) =>
  page.evaluate<boolean>('document.documentElement.scrollWidth > innerWidth');

/** Bytes and nodes that the page has after a collection of garbage. */
async function usage(
  session: CDPSession,
): Promise<{ heap: number; nodes: number; listeners: number }> {
  await session.send('HeapProfiler.collectGarbage');
  const { metrics } = await session.send('Performance.getMetrics');
  const metric = (name: string) => metrics.find((candidate) => candidate.name === name)!.value;
  return {
    heap: metric('JSHeapUsedSize'),
    nodes: metric('Nodes'),
    listeners: metric('JSEventListeners'),
  };
}

function tokenFile(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'db-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'token');
  writeFileSync(file, `${TOKEN}\n`);
  chmodSync(file, 0o600);
  return file;
}

withBrowser((browser) => {
  t.test('it says that the target is gone, and goes on with the next one', async (t) => {
    const dashboard = await openDashboard(t, browser, (target) => target.serve());
    const { page, target, complaints, url } = dashboard;
    await live(dashboard);
    t.equal(await page.locator('#vms tbody tr:not(.more)').count(), 1);
    await target.kill();
    await becomes(
      page,
      'it says so',
      `document.querySelector('#connection').dataset.state === 'lost'`,
    );
    t.match(
      await page.locator('#alerts').textContent(),
      /^No connection to the target since \d\d:\d\d:\d\d/,
    );
    t.equal(await page.locator('body').getAttribute('data-stale'), '');
    await screenshot(page, 'lost');
    await page.getByRole('button', { name: 'New disk' }).click();
    await page.getByLabel('Kind').selectOption({ label: 'Null: discards writes, for measuring' });
    await page.getByLabel('Name').fill('x');
    await page.getByLabel('Size', { exact: true }).fill('1M');
    await page.getByRole('button', { name: 'Create disk' }).click();
    await becomes(
      page,
      'an action says so, too',
      `document.querySelector('.failure').textContent === 'No connection to the target'`,
    );
    await page.keyboard.press('Escape');

    await target.start('--http', new URL(url).host);
    await target.call('bdev_null_create', { name: 'fresh', block_size: 512, num_blocks: 2048 });
    await becomes(
      page,
      'it is live again',
      `document.querySelector('#connection').dataset.state === 'live'`,
    );
    await page.getByRole('button', { name: 'Details of fresh' }).waitFor();
    t.equal(await page.locator('#vms tbody tr:not(.more)').count(), 0);
    await becomes(
      page,
      'events are those of the new one',
      `document.querySelectorAll('.events li').length === 1`,
    );
    t.match(await page.locator('.events').textContent(), /Disk fresh created/);
    t.equal(await page.locator('#alerts').textContent(), 'All is well.');
    t.strictSame(
      complaints.filter((text) => !/net::ERR_/.test(text)),
      [],
    );
  });

  t.test('it asks for the token', async (t) => {
    const targetOptions = ['--http-token-file', tokenFile(t)];
    const dashboard = await openDashboard(t, browser, undefined, { targetOptions });
    const { page, complaints } = dashboard;
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Token').fill('wrong');
    await screenshot(page, 'token');
    await dialog.getByRole('button', { name: 'Log in' }).click();
    await becomes(
      page,
      'it is refused',
      `document.querySelector('.failure').textContent === 'Wrong token'`,
    );
    await page.keyboard.press('Escape');
    await page.getByRole('heading', { name: 'Log in' }).waitFor();
    await dialog.getByLabel('Token').fill(TOKEN);
    await dialog.getByRole('button', { name: 'Log in' }).click();
    await live(dashboard);
    await page.reload();
    await live(dashboard);
    await page.getByRole('button', { name: 'Log out' }).click();
    await dialog.getByLabel('Token').waitFor();

    const other = await openPage(t, browser, `${dashboard.url}#token=${TOKEN}`);
    await live({ ...dashboard, ...other });
    t.equal(other.page.url(), dashboard.url, 'the token leaves the address');
    t.strictSame(other.complaints, []);
    // The browser itself notes the answer 401 to a wrong token.
    t.strictSame(
      complaints.filter((text) => !/status of 401/.test(text)),
      [],
    );
  });

  t.test('hostile names are only text', async (t) => {
    const dashboard = await openDashboard(t, browser, hostileVms);
    const { page, complaints } = dashboard;
    await live(dashboard);
    const names = await page.locator('#vms tbody .name strong').allTextContents();
    t.strictSame([...names].sort(), [...HOSTILE].sort());
    for (const toggle of await page.locator('.toggle').all()) {
      await toggle.click();
    }
    await page.locator('.detail-box').first().waitFor();
    await becomes(
      page,
      'all are open',
      `document.querySelectorAll('.detail-box').length === ${2 * HOSTILE.length}`,
    );
    await page.locator('#vms').getByRole('button', { name: 'Command line' }).first().click();
    t.equal(await page.locator('pre').count(), 2);
    await page.getByRole('button', { name: 'Close' }).click();
    await page.locator('#vms').getByRole('button', { name: 'Delete VM' }).first().click();
    await screenshot(page, 'hostile');
    await page.keyboard.press('Escape');
    t.equal(await page.evaluate('window.hacked'), undefined);
    t.strictSame(
      await page.evaluate(`[...document.querySelectorAll('img, b, i, u, body script')].length`),
      0,
    );
    t.equal(await page.evaluate('({}).polluted ?? Object.keys(Object.prototype).length'), 0);
    t.strictSame(complaints, []);
  });

  for (const width of [360, 768]) {
    t.test(`nothing is cut off at a width of ${width}`, async (t) => {
      const dashboard = await openDashboard(t, browser, hostileVms, {
        viewport: { width, height: 800 },
        hasTouch: true,
        colorScheme: 'dark',
        reducedMotion: 'reduce',
      });
      const { page, complaints } = dashboard;
      await live(dashboard);
      t.notOk(await scrolls(page));
      await screenshot(page, `width-${width}`);
      for (const name of ['Details of __proto__']) {
        for (const toggle of await page.getByRole('button', { name }).all()) {
          await toggle.click();
        }
      }
      t.notOk(await scrolls(page), 'with open rows');
      for (const name of ['New disk', 'New VM']) {
        await page.getByRole('button', { name, exact: true }).click();
        t.notOk(await scrolls(page), name);
        const box = await page.getByRole('dialog').boundingBox();
        t.ok(box !== null && box.x >= 0 && box.x + box.width <= width, `${name} fits`);
        await page.keyboard.press('Escape');
      }
      t.strictSame(complaints, []);
    });
  }

  t.test('it can be read and used by everybody', async (t) => {
    for (const colorScheme of ['light', 'dark'] as const) {
      const dashboard = await openDashboard(t, browser, hostileVms, { colorScheme });
      const { page } = dashboard;
      await live(dashboard);
      await page.getByRole('button', { name: 'Details of __proto__' }).first().click();
      await page.getByRole('button', { name: 'New disk' }).click();
      const session = await page.context().newCDPSession(page);
      const { nodes } = await session.send('Accessibility.getFullAXTree');
      const used = nodes.filter(
        ({ ignored, role }) =>
          !ignored &&
          /^(button|textbox|combobox|checkbox|meter|dialog|table|region|img)$/i.test(
            String(role?.value),
          ),
      );
      t.ok(used.length > 5);
      t.strictSame(
        used.filter(({ name }) => !name?.value).map(({ role }) => role?.value),
        [],
      );
      await page.keyboard.press('Escape');
      t.ok(await page.evaluate(`document.activeElement.id === 'new-disk'`), 'the focus goes back');
      t.equal(await page.locator('#alerts').getAttribute('aria-live'), 'polite');
      for (const [text, back] of [
        ['text', 'panel'],
        ['text', 'page'],
        ['text', 'raised'],
        ['text', 'warning-back'],
        ['text', 'error-back'],
        ['muted', 'panel'],
        ['muted', 'page'],
        ['error', 'panel'],
        ['error', 'raised'],
        ['fine', 'page'],
        ['on-accent', 'accent'],
        ['on-accent', 'error'],
      ]) {
        const [a, b] = (
          await page.evaluate<string[]>(
            `['--${text}', '--${back}'].map((name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim())`,
          )
        ).map(luminance);
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        t.ok(
          contrast >= 4.5,
          `${colorScheme}: ${text} on ${back} has a contrast of ${contrast.toFixed(2)}`,
        );
      }
    }
  });

  t.test('a page that nobody sees draws nothing, and remembers all', async (t) => {
    const dashboard = await openDashboard(t, browser, hostileVms);
    const { page } = dashboard;
    await live(dashboard);
    // As another tab in front of it would do; headless Chromium has no front.
    await page.evaluate(`(async () => {
      const { model } = await import('/app.js');
      window.model = model;
      window.changes = 0;
      Object.defineProperty(document, 'hidden', { get: () => window.isHidden });
      window.isHidden = true;
      document.dispatchEvent(new Event('visibilitychange'));
      await new Promise((resolve) => requestAnimationFrame(resolve));
      new MutationObserver((list) => { window.changes += list.length; })
        .observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
      window.before = model.snapshot.ticks;
      window.points = model.history.times(600).length;
    })()`);
    await becomes(page, 'three seconds pass', 'model.history.times(600).length >= points + 3');
    t.equal(await page.evaluate('changes'), 0);
    await page.evaluate(`isHidden = false; document.dispatchEvent(new Event('visibilitychange'))`);
    await becomes(page, 'it is drawn again', 'changes > 0');
  });

  t.test('it does not grow when it stays open', async (t) => {
    const dashboard = await openDashboard(t, browser, hostileVms);
    const { page, target, complaints } = dashboard;
    await live(dashboard);
    await page.getByRole('button', { name: 'Details of __proto__' }).first().click();
    const session = await page.context().newCDPSession(page);
    await session.send('Performance.enable');
    // Snapshots as the target makes them, with the counters of a busy one; far more than the history keeps.
    await page.evaluate(`(async () => {
      const { model } = await import('/app.js');
      const base = ${JSON.stringify(await snapshotOf(target))};
      window.seconds = 0;
      window.feed = async (n) => {
        for (let i = 0; i < n; i++) {
          window.seconds += 1;
          const snapshot = structuredClone(base);
          snapshot.time = new Date(Date.parse(base.time) + window.seconds * 1000).toISOString();
          snapshot.ticks = base.ticks + window.seconds * 1e9;
          for (const bdev of snapshot.bdevs) {
            bdev.io.readOps = window.seconds * 1000;
            bdev.io.readBytes = window.seconds * 4096000;
            bdev.io.readLatency = [[64000 + (window.seconds % 7) * 1000, window.seconds * 900], [1e6, window.seconds * 100]]
              .map(([bound, count]) => [bound, count]);
            bdev.io.errors = { '0x281': window.seconds };
          }
          model.accept(snapshot);
          model.addEvent({ seq: 1000 + window.seconds, time: snapshot.time, type: 'bdev-created', bdev: 'b' + window.seconds });
          if (i % 10 === 0) {
            document.dispatchEvent(new Event('visibilitychange'));
            await new Promise((resolve) => requestAnimationFrame(resolve));
          }
        }
      };
    })()`);
    await page.evaluate('feed(700)');
    const before = await usage(session);
    await page.evaluate('feed(2000)');
    const after = await usage(session);
    t.ok(after.heap < before.heap + 4 * MIB, `heap: ${before.heap} bytes, then ${after.heap}`);
    t.ok(after.nodes < before.nodes * 1.5 + 500, `nodes: ${before.nodes}, then ${after.nodes}`);
    t.ok(
      after.listeners < before.listeners + 100,
      `listeners: ${before.listeners}, then ${after.listeners}`,
    );
    t.strictSame(complaints, []);
  });
});

/** Relative luminance of #rrggbb, as WCAG 2.2 defines it. */
function luminance(color: string): number {
  const [r, g, b] = [1, 3, 5].map((at) => {
    const share = Number.parseInt(color.slice(at, at + 2), 16) / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
