/** Prometheus' text formats. The values are read when somebody asks; nothing is counted for them. */
import { type Metric, Registry, type RegistryContentType } from 'prom-client';
import { FAMILIES } from './families.ts';
import type { HistogramSample, MetricsState, Sample } from './family.ts';

/**
 * Upper bounds in ns of the buckets that are shown: powers of two from 1 µs to 17 s. The counted buckets are finer and end at powers of two
 * too, so the counts shown are exact.
 */
const BOUNDS_NS = Array.from({ length: 25 }, (_, power) => 1024 * 2 ** power);
const NS_PER_S = 1e9;

interface Line extends Sample {
  readonly metricName?: string;
}

/** The lines of one histogram: cumulative buckets, sum and count. */
function histogramLines(name: string, { labels, buckets, sum }: HistogramSample): Line[] {
  const lines: Line[] = [];
  let next = 0;
  let count = 0;
  for (const bound of BOUNDS_NS) {
    for (; next < buckets.length && buckets[next][0] <= bound; next++) {
      count += buckets[next][1];
    }
    const le = bound / NS_PER_S;
    lines.push({ metricName: `${name}_bucket`, labels: { ...labels, le }, value: count });
  }
  for (; next < buckets.length; next++) {
    count += buckets[next][1];
  }
  lines.push({ metricName: `${name}_bucket`, labels: { ...labels, le: '+Inf' }, value: count });
  lines.push({ metricName: `${name}_sum`, labels, value: sum / NS_PER_S });
  lines.push({ metricName: `${name}_count`, labels, value: count });
  return lines;
}

/** Writes all metrics, in the format that an Accept header asks for. */
export async function renderMetrics(
  state: MetricsState,
  accept = '',
): Promise<{ readonly type: string; readonly text: string }> {
  const registry = new Registry<RegistryContentType>();
  registry.setContentType(
    accept.includes('application/openmetrics-text')
      ? Registry.OPENMETRICS_CONTENT_TYPE
      : Registry.PROMETHEUS_CONTENT_TYPE,
  );
  for (const family of FAMILIES) {
    const { name, help, type } = family;
    const values =
      family.type === 'histogram'
        ? family.read(state).flatMap((sample) => histogramLines(name, sample))
        : family.read(state);
    const metric = { name, help, type, values, get: () => metric };
    // What a registry asks of a metric; the classes of prom-client count for themselves, which the reactors do for us.
    registry.registerMetric(metric as unknown as Metric);
  }
  return { type: registry.contentType, text: await registry.metrics() };
}
