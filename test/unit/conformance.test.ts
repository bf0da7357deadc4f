/** What the controller says that it supports is what is registered: docs/conformance.md, and the tables themselves. */
import { existsSync, readFileSync } from 'node:fs';
import t from 'tap';
import { IDENTIFY_DATA } from '../../src/nvme/admin/identify.ts';
import { ADMIN_COMMANDS } from '../../src/nvme/admin/table.ts';
import { Features } from '../../src/nvme/features/state.ts';
import { IO_COMMANDS } from '../../src/nvme/io-commands.ts';
import { LOG_PAGES } from '../../src/nvme/logs/table.ts';
import { CONFORMANCE_PATH, conformanceText } from '../helpers/conformance.ts';

t.test('docs/conformance.md', async (t) => {
  const text = existsSync(CONFORMANCE_PATH) ? readFileSync(CONFORMANCE_PATH, 'utf8') : '';
  t.equal(text, conformanceText(), 'npm run docs');
});

t.test('nothing is registered twice', async (t) => {
  for (const [what, numbers] of Object.entries({
    'admin opcodes': ADMIN_COMMANDS.map(({ opcode }) => opcode),
    'I/O opcodes': IO_COMMANDS.map(({ opcode }) => opcode),
    'log pages': LOG_PAGES.map(({ lid }) => lid),
    'Identify data structures': IDENTIFY_DATA.map(({ cns }) => cns),
    features: new Features(1, () => false).all.map(({ fid }) => fid),
  })) {
    t.ok(numbers.length > 0 && new Set(numbers).size === numbers.length, what);
  }
});
