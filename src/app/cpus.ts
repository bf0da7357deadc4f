/** Which processors the reactors run on. */
import { MAX_REACTORS } from '../limits.ts';
import { InvalidError } from '../util/errors.ts';

/** Processors beyond any machine; a longer list is a typing error. */
const MAX_CPU = 4095;

/** A mask as SPDK's -m takes it: hexadecimal (`0x5`, `5`), or a list in brackets (`[0,2-3]`). Throws InvalidError. */
export function parseCpuMask(text: string): number[] {
  const list = /^\[(.*)\]$/.exec(text);
  if (list !== null) {
    return parseCpuList(list[1]);
  }
  if (!/^(0x)?[0-9a-f]{1,1024}$/i.test(text)) {
    throw new InvalidError(`'${text}' is not a CPU mask: use a hexadecimal number, or [0,2-3]`);
  }
  const bits = BigInt(text.toLowerCase().startsWith('0x') ? text : `0x${text}`);
  const cpus: number[] = [];
  for (let cpu = 0; bits >> BigInt(cpu) !== 0n; cpu++) {
    if ((bits >> BigInt(cpu)) & 1n) {
      cpus.push(cpu);
    }
  }
  if (cpus.length === 0) {
    throw new InvalidError(`the CPU mask '${text}' is empty`);
  }
  return cpus;
}

/** A list like `0,2-3`. Throws InvalidError. */
export function parseCpuList(text: string): number[] {
  const cpus = new Set<number>();
  for (const part of text.split(',')) {
    const range = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(part.trim());
    const first = Number(range?.[1]);
    const last = Number(range?.[2] ?? first);
    if (range === null || last < first || last > MAX_CPU) {
      throw new InvalidError(`'${text}' is not a list of CPUs: use for example 0,2-3`);
    }
    for (let cpu = first; cpu <= last; cpu++) {
      cpus.add(cpu);
    }
  }
  return [...cpus].sort((a, b) => a - b);
}

/**
 * The processors for the reactors, one each. Without a wish it is all that this process may use but the first, which is left to
 * the main thread (with only one, they share it). Throws InvalidError.
 */
export function chooseCpus(
  wanted: readonly number[] | undefined,
  allowed: readonly number[],
  most = MAX_REACTORS,
): readonly number[] {
  if (wanted === undefined) {
    return (allowed.length > 1 ? allowed.slice(1) : allowed).slice(0, most);
  }
  const missing = wanted.find((cpu) => !allowed.includes(cpu));
  if (missing !== undefined) {
    throw new InvalidError(`CPU ${missing} is not one of those this process may use`);
  }
  if (wanted.length > MAX_REACTORS) {
    throw new InvalidError(`there can be ${MAX_REACTORS} reactors, not ${wanted.length}`);
  }
  return wanted;
}
