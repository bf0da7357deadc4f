/** Requests over HTTP to a target: a target that serves HTTP, and autocannon in a process of its own (http-load.ts) for as long as needed. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { HttpFigure, HttpLoad } from './http-load.ts';
import { type BenchTarget, type BenchTargetOptions, startTarget } from './target.ts';

const LOAD = fileURLToPath(new URL('./http-load.js', import.meta.url));

/** Starts a target with HTTP at a free port; `url` ends with a slash. */
export async function startHttpTarget(
  options: BenchTargetOptions,
): Promise<BenchTarget & { readonly url: string }> {
  let printed = '';
  let heard: () => void = () => {};
  const target = await startTarget({
    ...options,
    args: ['--http', '0', ...(options.args ?? [])],
    onOutput: (text) => {
      printed += text;
      heard();
    },
  });
  for (;;) {
    const url = /^HTTP: +(\S+)\n/m.exec(printed)?.[1];
    if (url !== undefined) {
      return { ...target, url };
    }
    await new Promise<void>((resolve) => {
      heard = resolve;
    });
  }
}

/** Sends requests until the operation is over. Rejects if one was not answered as it should be. */
export async function underRequests<T>(
  load: HttpLoad,
  operation: () => Promise<T>,
): Promise<[T, HttpFigure]> {
  const stdio = ['pipe', 'pipe', 'inherit'] as const;
  const child = spawn(process.execPath, [LOAD, JSON.stringify(load)], { stdio: [...stdio] });
  let text = '';
  child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
  });
  const over = new Promise<number | null>((resolve) => child.on('close', resolve));
  let outcome: T;
  try {
    outcome = await operation();
  } finally {
    child.stdin?.end();
    await over;
  }
  if ((await over) !== 0) {
    throw new Error(`requests to ${load.url} failed`);
  }
  return [outcome, JSON.parse(text) as HttpFigure];
}
