/** VERSION: what is answered to which offer. */
import assert from 'node:assert/strict';
import t from 'tap';
import type { Message } from '../../src/vfio-user/codec.ts';
import { negotiate } from '../../src/vfio-user/negotiate.ts';
import { words } from '../helpers/vfio.ts';

function version(major: number, minor: number, json: string | Uint8Array = '', fds = 0): Message {
  const payload = Uint8Array.from(
    Buffer.concat([words([2, major], [2, minor]), Buffer.from(json as string)]),
  );
  const header = { messageId: 1, command: 1, size: 16 + payload.length, flags: 0, error: 0 };
  const view = new DataView(payload.buffer);
  return { kind: 'message', header, payload, view, fds: Array(fds).fill(99) };
}

function answer(request: Message) {
  const { terms, payload } = negotiate(request);
  const view = new DataView(payload.buffer);
  assert.equal(payload.at(-1), 0, 'ends in NUL');
  const text = Buffer.from(payload.subarray(4, -1)).toString();
  return {
    terms,
    major: view.getUint16(0, true),
    minor: view.getUint16(2, true),
    length: payload.length,
    capabilities: JSON.parse(text).capabilities,
  };
}

t.test('without JSON', async (t) => {
  t.match(answer(version(0, 1)), {
    major: 0,
    minor: 1,
    capabilities: { max_msg_fds: 8, max_dma_maps: 8192, max_data_xfer_size: 1048576 },
    terms: { minor: 1, clientMaxMsgFds: 1, writeMultiple: false },
  });
  t.notOk('write_multiple' in answer(version(0, 1)).capabilities, 'it was not offered');
});

t.test('the minor version is the lower one', async (t) => {
  t.equal(answer(version(0, 0)).minor, 0);
  t.equal(answer(version(0, 2)).minor, 2);
  t.equal(answer(version(0, 65535)).minor, 2);
});

t.test('write_multiple only if both have it', async (t) => {
  const offer = (value: boolean) =>
    `{"capabilities":{"write_multiple":${value},"padding":"${'x'.repeat(100)}"}}\0`;
  t.equal(answer(version(0, 0, offer(true))).terms.writeMultiple, true);
  t.equal(answer(version(0, 0, offer(true))).capabilities.write_multiple, true);
  t.equal(answer(version(0, 0, offer(false))).terms.writeMultiple, false);
  t.notOk('write_multiple' in answer(version(0, 0, offer(false))).capabilities);
});

t.test('a reply to JSON is never longer, and what it leaves out does not hold', async (t) => {
  for (let padding = 0; padding < 80; padding++) {
    const json = `{"capabilities":{"write_multiple":true}}${' '.repeat(padding)}\0`;
    const { length, capabilities, terms } = answer(version(0, 0, json));
    t.ok(length <= 4 + json.length, `${length} bytes to ${4 + json.length}`);
    t.equal(terms.writeMultiple, capabilities.write_multiple === true);
  }
  t.same(
    answer(version(0, 0, '{}\0')).capabilities,
    {},
    'the shortest has capabilities all the same',
  );
});

t.test('the transfer size is the lower one', async (t) => {
  const offer = (size: number) =>
    `{"capabilities":{"max_data_xfer_size":${size},"padding":"${'x'.repeat(99)}"}}\0`;
  t.equal(answer(version(0, 0, offer(65536))).capabilities.max_data_xfer_size, 65536);
  t.equal(answer(version(0, 0, offer(2 ** 30))).capabilities.max_data_xfer_size, 1048576);
});

t.test('refused', async (t) => {
  const cases: Record<string, Message> = {
    'another major version': version(1, 0),
    'a descriptor': version(0, 0, '', 1),
    'no NUL': version(0, 0, '{"capabilities":{}}'),
    'no JSON': version(0, 0, 'capabilities\0'),
    'nothing but NUL': version(0, 0, '\0'),
    'no object': version(0, 0, '[]\0'),
    null: version(0, 0, 'null\0'),
    'capabilities that are no object': version(0, 0, '{"capabilities":[]}\0'),
    'a number that is none': version(0, 0, '{"capabilities":{"max_msg_fds":"8"}}\0'),
    'a negative number': version(0, 0, '{"capabilities":{"max_msg_fds":-1}}\0'),
    'a broken number': version(0, 0, '{"capabilities":{"max_data_xfer_size":1.5}}\0'),
    'a boolean that is none': version(0, 0, '{"capabilities":{"write_multiple":1}}\0'),
    'bytes that are no UTF-8': version(0, 0, Buffer.from([0x22, 0xff, 0x22, 0])),
    'too much JSON': version(0, 0, `{"x":"${'x'.repeat(20_000)}"}\0`),
  };
  for (const [name, request] of Object.entries(cases)) {
    t.throws(() => negotiate(request), { code: 'EINVAL', errno: 22 }, name);
  }
  const short = version(0, 0);
  const payload = short.payload.subarray(0, 3);
  t.throws(() => negotiate({ ...short, payload }), { code: 'EINVAL' }, 'three bytes');
});

t.test('unknown keys, and what comes after the first NUL, are not looked at', async (t) => {
  t.equal(answer(version(0, 0, '{"capabilities":{"pgsizes":4096,"x":{}},"y":1}\0')).minor, 0);
  t.equal(answer(version(0, 0, '{"capabilities":{}}\0garbage\0')).minor, 0);
});
