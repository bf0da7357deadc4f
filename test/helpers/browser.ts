/** The browser that `src/setup/prepare.mjs test` found or fetched, and pages of the dashboard in it. */
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import type { Test } from './target.ts';

/** In dist/, seen from dist/test/helpers/. */
const FOUND = new URL('../../browser.json', import.meta.url);

const ARGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** The program, or the reason why there is none. */
export function findBrowser(): { readonly program: string } | { readonly unavailable: string } {
  if (!existsSync(FOUND)) {
    return { unavailable: 'no browser was set up: run node src/setup/prepare.mjs test' };
  }
  const found = JSON.parse(readFileSync(FOUND, 'utf8')) as ReturnType<typeof findBrowser>;
  return 'unavailable' in found || existsSync(found.program)
    ? found
    : { unavailable: `${found.program} is gone: run node src/setup/prepare.mjs test` };
}

/** With a user data folder of its own, which goes with it. */
export function startBrowser(program: string): Promise<Browser> {
  return chromium.launch({ executablePath: program, args: ARGS });
}

export interface OpenPage {
  readonly page: Page;
  /** What the browser complained about: exceptions, errors in the console (among them all that the CSP forbids). */
  readonly complaints: string[];
}

/** A page in a context of its own, closed with the test. */
export async function openPage(
  t: Test,
  browser: Browser,
  url: string,
  options: BrowserContextOptions = {},
): Promise<OpenPage> {
  const context = await browser.newContext({
    locale: 'en-US',
    viewport: { width: 1440, height: 900 },
    ...options,
  });
  t.teardown(() => context.close());
  const page = await context.newPage();
  const complaints: string[] = [];
  page.on('pageerror', (error) => complaints.push(String(error.stack)));
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') {
      complaints.push(message.text());
    }
  });
  await page.goto(url);
  return { page, complaints };
}

/** Keeps a picture of the page, if DOORBELL_SCREENSHOTS names a folder for them. */
export async function screenshot(page: Page, name: string): Promise<void> {
  const { DOORBELL_SCREENSHOTS: folder } = process.env;
  if (folder) {
    mkdirSync(folder, { recursive: true });
    await page.screenshot({ path: join(folder, `${name}.png`) });
  }
}

const POLL_MS = 50;
const PATIENCE_MS = 120_000;

/**
 * Waits until an expression is true in the page. Rejects with `what` if it does not become so. (Playwright's own way to wait for an
 * expression is eval, which the page forbids.)
 */
export async function becomes(page: Page, what: string, expression: string): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  while (!(await page.evaluate(expression))) {
    if (performance.now() > end) {
      throw new Error(`${what}: ${expression} did not become true`);
    }
    await setTimeout(POLL_MS);
  }
}
