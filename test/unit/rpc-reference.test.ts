import { readFileSync } from 'node:fs';
import t from 'tap';
import { REFERENCE_PATH, renewReference } from '../helpers/rpc-reference.ts';

t.test('docs/rpc.md says what the schemas check', async (t) => {
  const text = readFileSync(REFERENCE_PATH, 'utf8');
  t.equal(text, renewReference(text), 'node dist/test/helpers/rpc-reference.js renews it');
});
