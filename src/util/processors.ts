/** What Linux says of a processor. */
import { readdirSync, readFileSync } from 'node:fs';

/** Time since the system started that the processor spent so, in units of 10 ms (USER_HZ); `proc(5)`. */
export interface ProcessorTimes {
  readonly usr: number;
  readonly sys: number;
  readonly irq: number;
}

const FIELD = { USER: 1, SYSTEM: 3, IRQ: 6 } as const;

/** By the number of the processor; those that are not there are left out. */
export function processorTimes(): Map<number, ProcessorTimes> {
  const lines = readFileSync('/proc/stat', 'utf8').split('\n');
  return new Map(
    lines.flatMap((line): [number, ProcessorTimes][] => {
      const number = /^cpu(\d+) /.exec(line)?.[1];
      const fields = line.split(' ').map(Number);
      return number === undefined
        ? []
        : [
            [
              Number(number),
              { usr: fields[FIELD.USER], sys: fields[FIELD.SYSTEM], irq: fields[FIELD.IRQ] },
            ],
          ];
    }),
  );
}

/** The NUMA node of a processor, or -1 if the system tells none. */
export function numaNode(processor: number): number {
  try {
    const entries = readdirSync(`/sys/devices/system/cpu/cpu${processor}`);
    const node = entries.map((name) => /^node(\d+)$/.exec(name)?.[1]).find((found) => found);
    return node === undefined ? -1 : Number(node);
  } catch {
    return -1;
  }
}
