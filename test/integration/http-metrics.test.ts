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

t.test('what a client does is counted', async (t) => {
  const { url, target } = await startHttp(t);
  const scrape = async () => (await ask(`${url}metrics`)).text;
  const bdev = await target.malloc(MIB);
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
  await post(`${url}rpc`, { jsonrpc: '2.0', id: 1, method: 'bdev_get_bdevs' });
  await post(`${url}rpc`, { jsonrpc: '2.0', id: 1, method: 'bdev_get_bdevs', params: { x: 1 } });
  const text = await scrape();
  t.equal(sample(text, 'doorbell_bdev_ops_total', { bdev, op: 'read' }), 15);
  t.equal(sample(text, 'doorbell_bdev_ops_total', { bdev, op: 'write' }), 5);
  t.equal(sample(text, 'doorbell_bdev_bytes_total', { bdev, op: 'read' }), 15 * 4096);
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
