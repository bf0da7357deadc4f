/** The OpenRPC document is one, its schemas and examples are right, and docs/rpc.md says the same. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { Ajv } from 'ajv';
import t from 'tap';
import { documentedMethods, REFERENCE_PATH, renewed } from '../../src/app/reference.ts';
import { openRpcDocument } from '../../src/rpc/openrpc.ts';

// Its type declarations leave the value out.
const { openrpcDocument } = createRequire(import.meta.url)('@open-rpc/meta-schema');

t.test('the document is one by the meta schema', async (t) => {
  const ajv = new Ajv({ strict: false, formats: { uri: true } });
  // The meta schema names JSON Schema, and the type of $ref, by an address of its own.
  const jsonSchema = { $ref: 'http://json-schema.org/draft-07/schema#' };
  ajv.addSchema({ $id: 'https://meta.json-schema.tools', allOf: [jsonSchema] });
  ajv.addSchema({
    $id: 'https://meta.json-schema.tools/',
    definitions: { JSONSchemaObject: { properties: { $ref: { type: 'string' } } } },
  });
  const { $schema: _, ...metaSchema } = openrpcDocument;
  const validate = ajv.compile(metaSchema);
  const document = openRpcDocument(documentedMethods(), '1.2.3');
  t.ok(validate(JSON.parse(JSON.stringify(document))), JSON.stringify(validate.errors, null, 1));
  t.notOk(validate({ ...document, methods: [{ name: 'x' }] }), 'which is checked');

  const names = document.methods.map(({ name }) => name);
  t.equal(new Set(names).size, names.length);
  t.ok(names.includes('rpc.discover') && names.includes('bdev_malloc_create'));
  const listener = document.methods.find(({ name }) => name === 'nvmf_subsystem_add_listener');
  t.match(listener, {
    paramStructure: 'by-name',
    params: [
      { name: 'nqn', required: true },
      { name: 'tgt_name', required: false },
      { name: 'listen_address', schema: { type: 'object', required: ['trtype', 'traddr'] } },
    ],
    result: { schema: { const: true } },
    'x-unknown-keys': true,
    'x-phase': 'runtime',
  });
});

t.test('every method is described, and examples are what they should be', async (t) => {
  const ajv = new Ajv({ strict: true, strictTuples: false });
  ajv.addKeyword({ keyword: 'expected', schemaType: 'string' });
  let examples = 0;
  for (const method of documentedMethods()) {
    const params = ajv.compile({ ...method.params, additionalProperties: method.relaxed });
    const result = ajv.compile(method.result);
    t.notSame(method.result, {}, `${method.name} says what its result is`);
    t.ok(method.summary.endsWith('.'), `${method.name} has a sentence`);
    for (const [key, schema] of Object.entries(method.params.properties)) {
      const documented = 'description' in schema || 'properties' in schema;
      t.ok(documented, `${method.name} describes ${key}`);
    }
    for (const example of method.examples) {
      examples += 1;
      t.ok(params(example.params), JSON.stringify(params.errors));
      t.ok(result(example.result), JSON.stringify(result.errors));
    }
  }
  t.ok(examples > 5);
});

t.test('docs/rpc.md is made from it', async (t) => {
  const text = readFileSync(REFERENCE_PATH, 'utf8');
  t.equal(text, renewed(text), '`npm run docs` renews it');
});
