/** Sizes for people. */

/** A number of bytes in the largest binary unit that leaves at least 1. */
export function binarySize(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];
  let value = bytes;
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit += 1) {
    value /= 1024;
  }
  const digits = Number.isInteger(value) ? 0 : value < 100 ? 2 : 0;
  return `${value.toFixed(digits)} ${units[unit]}`;
}
