/** What requests over HTTP take from the data path: IOPS with autocannon at /metrics, held against IOPS without, in turn. */
import { serveNull } from './idle-measure.ts';
import { type Conditions, type Load, runPerf } from './load.ts';
import { startHttpTarget, underRequests } from './requests.ts';
import { median } from './stats.ts';

const LOAD: Load = { op: 'read', random: true, blockSize: 4096, depth: 32 };
/** Connections of autocannon that asks as often as possible. */
const CONNECTIONS = 10;

/** The share of IOPS that is lost while `rate` requests a second (0: as many as possible) ask for metrics. Median of the runs. */
export async function measureHttpLoss(
  conditions: Conditions & { readonly runs: number },
  rate: number,
): Promise<number> {
  const target = await startHttpTarget({ cpus: [conditions.reactorCpu] });
  try {
    const socket = await serveNull(target);
    const measure = async (): Promise<number> =>
      (await runPerf([socket], LOAD, conditions)).total.iops;
    const requests = {
      url: `${target.url}metrics`,
      connections: rate === 0 ? CONNECTIONS : 1,
      rate,
    };
    const losses: number[] = [];
    for (let i = 0; i < conditions.runs; i++) {
      const alone = await measure();
      const [loaded] = await underRequests(requests, measure);
      losses.push(1 - loaded / alone);
    }
    return median(losses);
  } finally {
    await target.stop();
  }
}
