/** The load generator's histogram, against hdr-histogram-js over the same values. */
import { build } from 'hdr-histogram-js';
import t from 'tap';
import { toHdr } from '../../src/cli/perf/report.ts';
import { bucketBounds, Latencies } from '../../src/client/latencies.ts';
import { Random } from '../helpers/random.ts';

t.test('the buckets cover all values, without a gap, at most 1/128 wide', async (t) => {
  for (let bucket = 0, next = 0; next < 2 ** 48; bucket++) {
    const { from, to } = bucketBounds(bucket);
    if (from !== next || (to - from) * 128 > Math.max(from, 128)) {
      t.fail(`bucket ${bucket}: ${from} to ${to}, after ${next}`);
      break;
    }
    next = to;
  }
  const edges = [0, 1, 127, 128, 255, 256, 1e6, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 40 + 12345];
  for (const value of edges) {
    const latencies = new Latencies();
    latencies.record(value);
    const [{ from, to, count }] = [...latencies.buckets()];
    t.ok(from <= value && value < to && count === 1, `${value} in ${from} to ${to}`);
  }
});

t.test('count, mean, smallest and largest are exact', async (t) => {
  const latencies = new Latencies();
  t.strictSame(
    [latencies.count, latencies.mean, latencies.min, latencies.max, ...latencies.buckets()],
    [0, 0, 0, 0],
  );
  for (const ns of [1000, 3000, 5000.7, -4]) {
    latencies.record(ns);
  }
  t.strictSame([latencies.count, latencies.mean, latencies.min, latencies.max], [4, 2250, 0, 5000]);
  const other = new Latencies();
  other.record(2 ** 60);
  latencies.add(other);
  t.equal(latencies.count, 5);
  t.equal(latencies.max, 2 ** 48 - 1, 'the largest it knows');
  latencies.clear();
  t.strictSame([latencies.count, latencies.max, ...latencies.buckets()], [0, 0]);
});

t.test('percentiles are those of hdr-histogram-js', async (t) => {
  const random = new Random(1);
  const latencies = new Latencies();
  const reference = build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: 2 ** 47,
    numberOfSignificantValueDigits: 4,
    bitBucketSize: 64,
  });
  for (let i = 0; i < 50_000; i++) {
    const value = Math.floor(2 ** (random.below(400_000) / 10_000));
    latencies.record(value);
    reference.recordValue(value);
  }
  const hdr = toHdr(latencies);
  t.equal(hdr.totalCount, 50_000);
  for (const percentile of [1, 10, 50, 90, 99, 99.9, 99.99, 100]) {
    const [own, theirs] = [
      hdr.getValueAtPercentile(percentile),
      reference.getValueAtPercentile(percentile),
    ];
    t.ok(Math.abs(own - theirs) <= theirs / 64, `p${percentile}: ${own}, ${theirs}`);
  }
});
