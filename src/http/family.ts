/** What a metric is, before it is written down. */
import type { CallCounts } from '../rpc/dispatcher.ts';
import type { LatencyBuckets, Snapshot } from '../target/snapshot.ts';

/** What the metrics are made of. */
export interface MetricsState {
  readonly snapshot: Snapshot;
  /** JSON-RPC requests by method. */
  readonly calls: ReadonlyMap<string, CallCounts>;
}

export type Labels = Readonly<Record<string, string | number>>;

/** One line, but for histograms. */
export interface Sample {
  readonly labels: Labels;
  readonly value: number;
}

export interface HistogramSample {
  readonly labels: Labels;
  readonly buckets: LatencyBuckets;
  /** Nanoseconds. */
  readonly sum: number;
}

/** A metric with all its labels, as its declaration in families.ts. */
export type Family = { readonly name: string; readonly help: string } & (
  | {
      readonly type: 'counter' | 'gauge';
      readonly read: (state: MetricsState) => readonly Sample[];
    }
  | {
      readonly type: 'histogram';
      readonly read: (state: MetricsState) => readonly HistogramSample[];
    }
);
