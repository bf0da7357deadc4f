/** The files of the dashboard, read once at the start: what they are, and under which path they are served. */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export interface Asset {
  readonly type: string;
  readonly body: Buffer;
  readonly etag: string;
}

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.ico': 'image/x-icon',
  '.webmanifest': 'application/manifest+json',
};

/** Not compiled, so it is in the sources: from dist/src/http. */
const DASHBOARD = fileURLToPath(new URL('../../../src/http/dashboard/', import.meta.url));
/** Of the package uplot. */
const UPLOT_FILES = ['uPlot.esm.js', 'uPlot.iife.min.js', 'uPlot.min.css'];

function load(path: string): Asset {
  const body = readFileSync(path);
  const hash = createHash('sha256').update(body).digest('base64url').slice(0, 27);
  return { type: TYPES[extname(path)], body, etag: `"${hash}"` };
}

/** By path: `/` is index.html, `/uplot/…` the chart library, the rest is as in the folder. */
export function loadAssets(): ReadonlyMap<string, Asset> {
  const assets = new Map<string, Asset>();
  const names = existsSync(DASHBOARD)
    ? readdirSync(DASHBOARD, { recursive: true, encoding: 'utf8' })
    : [];
  for (const name of names) {
    if (extname(name) in TYPES) {
      assets.set(name === 'index.html' ? '/' : `/${name}`, load(join(DASHBOARD, name)));
    }
  }
  const uplot = dirname(createRequire(import.meta.url).resolve('uplot'));
  for (const name of UPLOT_FILES) {
    assets.set(`/uplot/${name}`, load(join(uplot, name)));
  }
  return assets;
}
