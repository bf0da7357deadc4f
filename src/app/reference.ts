/** Renews what is made of schemas, the reference in docs/rpc.md and config/schema.json: `npm run docs`. */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import type { RpcMethod } from '../rpc/dispatcher.ts';
import { allMethods } from '../rpc/methods/index.ts';
import { openRpcDocument } from '../rpc/openrpc.ts';
import { renewReference } from '../rpc/reference.ts';
import { Target } from '../target/target.ts';
import { LogControl } from '../util/log.ts';
import { VERSION } from '../util/version.ts';
import { editorSchema } from './config/schema.ts';

/** From dist/src/app. */
export const SCHEMA_PATH = fileURLToPath(new URL('../../../config/schema.json', import.meta.url));
export const REFERENCE_PATH = fileURLToPath(new URL('../../../docs/rpc.md', import.meta.url));

/** The methods of a target that has no reactors: to be read, not called. */
export function documentedMethods(): RpcMethod[] {
  const unused = (): never => {
    throw new Error('this target only describes its methods');
  };
  const target = new Target({
    log: pino({ level: 'silent' }),
    reactors: {
      count: 0,
      cores: [],
      controllersSeen: 0,
      iostat: unused,
      bdevTally: unused,
      resetIostat: unused,
      forgetBdev: unused,
      state: unused,
      report: unused,
      onLost: () => {},
    },
    listen: unused,
  });
  return allMethods(target, VERSION, new LogControl('silent'));
}

/** What docs/rpc.md should be, from what it is. */
export function renewed(text: string): string {
  return renewReference(text, openRpcDocument(documentedMethods(), VERSION));
}

/** What config/schema.json should be. */
export function schemaText(): string {
  return `${JSON.stringify(editorSchema(), null, 2)}\n`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(SCHEMA_PATH, schemaText());
  writeFileSync(REFERENCE_PATH, renewed(readFileSync(REFERENCE_PATH, 'utf8')));
}
