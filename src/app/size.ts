/** Sizes as people write them: `1G`, `1.5G`, `512MiB`, `4096`. Units are powers of 1024. */
import { InvalidError } from '../util/errors.ts';

const UNITS = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 } as const;

/** In bytes. Throws InvalidError. */
export function parseSize(text: string): number {
  const match = /^(\d{1,15}(?:\.\d{1,6})?)([KMGT]?)(?:i?B)?$/i.exec(text);
  const unit = match?.[2].toUpperCase() as keyof typeof UNITS | undefined;
  const bytes = Number(match?.[1]) * UNITS[unit ?? ''];
  if (match === null || bytes < 4096 || !Number.isSafeInteger(bytes)) {
    throw new InvalidError(`'${text}' is not a size: use for example 512M or 1G, at least 4096`);
  }
  return bytes;
}
