/** docs/neighbours.md names all troubles, each with the test that plays it. */
import { readFileSync } from 'node:fs';
import t from 'tap';
import { FAMILIES } from '../helpers/troubles/index.ts';

/** From dist/test/unit. */
const DOCUMENT = new URL('../../../docs/neighbours.md', import.meta.url);

t.test('docs/neighbours.md has a row a family', async (t) => {
  const text = readFileSync(DOCUMENT, 'utf8');
  for (const [family, troubles] of Object.entries(FAMILIES)) {
    const names = troubles.map(({ name }) => name);
    t.equal(new Set(names).size, names.length, `${family}: names are used once`);
    const row = `| \`test/neighbour/${family}.test.ts\` | ${names.join('; ')} |`;
    t.ok(text.includes(row), row);
  }
});
