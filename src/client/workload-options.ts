/** What a load is. */

export interface WorkloadOptions {
  /** vfio-user sockets: a controller each. */
  readonly sockets: readonly string[];
  /** Namespaces of each controller, used in turn; all that are active if empty. */
  readonly namespaces: readonly number[];
  /** Of each controller. */
  readonly queuePairs: number;
  /** Commands in flight in each queue pair, and entries of its queues (at least one more). */
  readonly depth: number;
  readonly queueEntries: number;
  /** Bytes of a command. */
  readonly blockSize: number;
  readonly random: boolean;
  /** Share of reads, 0 to 1. Less than 1 overwrites data. */
  readonly reads: number;
  /** Bytes from the beginning of each namespace; 0: all of it. */
  readonly size: number;
  /** Write a pattern, and compare what is read with what was written. */
  readonly verify: boolean;
  /** Commands a second at most, of all together; 0: as many as possible. */
  readonly rate: number;
  /** Regions of DMA over which the buffers of a controller are spread. */
  readonly regions: number;
  /** Time the commands. Costs a look at the clock a batch of completions. */
  readonly latency: boolean;
  readonly seed: number;
}
