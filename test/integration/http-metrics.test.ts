/** Metrics of a target under I/O, as a scraper gets them. */
import t from 'tap';
import { succeeded } from '../../src/client/nvme.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { ask, post, startHttp } from '../helpers/http.ts';
import { MIB } from '../helpers/target.ts';

/** A sample by its name and (some of) its labels. */
function sample(text: string, name: string, labels: Readonly<Record<string, string>> = {}): number {
  const found = text.split('\n').filter((line) => {
    const here = line.startsWith(`${name}{`) || line.startsWith(`${name} `);
    return (
      here && Object.entries(labels).every(([key, value]) => line.includes(`${key}="${value}"`))
    );
  });
  if (found.length !== 1) {
    throw new Error(`${found.length} samples of ${name} ${JSON.stringify(labels)}`);
  }
  return Number(found[0].slice(found[0].lastIndexOf(' ')));
}

/** What the observations of a histogram add up to if each is as long as its bucket allows. */
function bucketSum(text: string, name: string, labels: Readonly<Record<string, string>>): number {
  let sum = 0;
  let before = 0;
  for (let power = 10; power <= 34; power++) {
    const le = 2 ** power / 1e9;
    const count = sample(text, name, { ...labels, le: String(le) });
    sum += (count - before) * le;
    before = count;
  }
  return sum;
}

t.test('what a client does is counted', async (t) => {
  const { url, target } = await startHttp(t);
  const scrape = async () => (await ask(`${url}metrics`)).text;
  // Of a file every command is timed.
  const bdev = await target.file(target.image(MIB));
  const served = await target.serve(bdev);
  const vm = { nqn: served.nqn, socket: served.socket };
  t.equal(sample(await scrape(), 'doorbell_controller_connected', vm), 0);
  const client = await target.connect(served);
  const pair = await client.createQueuePair(1, 32);
  const prp1 = client.memory.iova + client.memory.allocate(4096);
  for (let i = 0; i < 20; i++) {
    const opcode = i < 15 ? NvmOpcode.READ : NvmOpcode.WRITE;
    succeeded(await pair.execute({ opcode, nsid: 1, prp1, cdw12: 7 }));
  }
  succeeded(await pair.execute({ opcode: NvmOpcode.FLUSH, nsid: 1 }));
  const beyond = { opcode: NvmOpcode.READ, nsid: 1, prp1, cdw10: MIB / 512, cdw12: 7 };
  t.not((await pair.execute(beyond)).status, 0);
  await post(`${url}rpc`, { jsonrpc: '2.0', id: 1, method: 'bdev_get_bdevs' });
  await post(`${url}rpc`, { jsonrpc: '2.0', id: 1, method: 'bdev_get_bdevs', params: { x: 1 } });
  const text = await scrape();
  t.equal(sample(text, 'doorbell_bdev_ops_total', { bdev, op: 'read' }), 15);
  t.equal(sample(text, 'doorbell_bdev_ops_total', { bdev, op: 'write' }), 5);
  t.equal(sample(text, 'doorbell_bdev_bytes_total', { bdev, op: 'read' }), 15 * 4096);
  for (const [op, ops, bytes] of [
    ['read', 15, 15 * 4096],
    ['write', 5, 5 * 4096],
  ] as const) {
    const labels = { ...vm, nsid: '1', bdev, op };
    t.equal(sample(text, 'doorbell_namespace_ops_total', labels), ops);
    t.equal(sample(text, 'doorbell_namespace_bytes_total', labels), bytes);
    for (const [name, whose] of [
      ['doorbell_bdev_latency_seconds', { bdev, op }],
      ['doorbell_controller_latency_seconds', { ...vm, op }],
    ] as const) {
      t.equal(sample(text, `${name}_count`, whose), ops);
      t.equal(sample(text, `${name}_bucket`, { ...whose, le: '+Inf' }), ops);
      const sum = sample(text, `${name}_sum`, whose);
      // Each took as long as its bucket says: between half of its end and its end.
      const most = bucketSum(text, `${name}_bucket`, whose);
      t.ok(sum <= most && sum >= most / 2 - ops * 1.024e-6, `${sum} s of ${most} s at most`);
    }
  }
  t.equal(sample(text, 'doorbell_namespace_ops_total', { ...vm, op: 'flush' }), 1);
  t.equal(sample(text, 'doorbell_namespace_errors_total', { ...vm, status: '0x080' }), 1);
  t.equal(sample(text, 'doorbell_bdev_size_bytes', { bdev }), MIB);
  t.equal(sample(text, 'doorbell_controller_connected', vm), 1);
  t.equal(sample(text, 'doorbell_controller_enabled', vm), 1);
  t.equal(sample(text, 'doorbell_controller_queues', vm), 1);
  t.equal(sample(text, 'doorbell_controller_queue_entries', vm), 32);
  t.equal(sample(text, 'doorbell_controller_outstanding_commands', vm), 0);
  t.equal(sample(text, 'doorbell_reactor_alive', { reactor: '0' }), 1);
  t.ok(sample(text, 'doorbell_reactor_busy_seconds_total', { reactor: '0' }) > 0);
  t.ok(sample(text, 'doorbell_guest_memory_bytes') > 0);
  t.equal(sample(text, 'doorbell_rpc_requests_total', { method: 'bdev_get_bdevs' }), 2);
  t.equal(sample(text, 'doorbell_rpc_errors_total', { method: 'bdev_get_bdevs' }), 1);
  t.ok(sample(text, 'process_cpu_seconds_total') > 0);
  t.ok(sample(text, 'process_open_fds') > 3);
  client.close();
});

t.test('many scrapers at once', async (t) => {
  const { url, target } = await startHttp(t);
  await target.serve(await target.malloc(MIB));
  const answers = await Promise.all(
    Array.from({ length: 30 }, (_, i) =>
      ask(`${url}metrics`, {
        headers: { Accept: i % 2 === 0 ? 'application/openmetrics-text' : 'text/plain' },
      }),
    ),
  );
  for (const [i, { status, text }] of answers.entries()) {
    t.equal(status, 200);
    t.equal(text.endsWith('# EOF\n'), i % 2 === 0);
    t.equal(sample(text, 'doorbell_reactor_alive'), 1);
  }
});
