/** Figures as text: three significant digits, units in IEC for bytes and SI for the rest. */

const NARROW_SPACE = '\u202f';
/** What is shown where there is no figure. */
export const NONE = '–';

/**
 * Three significant digits: 1.23, 12.3, 123.
 *
 * @param {number} value 0 or more
 */
function digits(value) {
  if (value >= 99.95) return value.toFixed(0);
  return value >= 9.995 ? value.toFixed(1) : value.toFixed(2);
}

/**
 * @param {number} value
 * @param {number} base of the units
 * @param {readonly string[]} units
 */
function scaled(value, base, units) {
  let unit = 0;
  let rest = value;
  // What would be rounded up to the next unit is shown in it.
  while (rest >= base - 0.5 && unit < units.length - 1) {
    rest /= base;
    unit += 1;
  }
  const text = unit === 0 && Number.isInteger(value) ? String(rest) : digits(rest);
  return units[unit] === '' ? text : `${text}${NARROW_SPACE}${units[unit]}`;
}

/** @param {number | undefined} value how many; a rate if it is a second's */
export function count(value) {
  if (value === undefined) return NONE;
  const shown = value < 10 ? Math.round(value * 10) / 10 : Math.round(value);
  return scaled(shown, 1000, ['', 'k', 'M', 'G', 'T']);
}

/** @param {number | undefined} value bytes */
export function bytes(value) {
  if (value === undefined) return NONE;
  return scaled(Math.round(value), 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']);
}

/** @param {number | undefined} value bytes a second */
export function byteRate(value) {
  return value === undefined ? NONE : `${bytes(value)}/s`;
}

/** @param {number | undefined} value nanoseconds */
export function latency(value) {
  return value === undefined ? NONE : scaled(Math.round(value), 1000, ['ns', 'µs', 'ms', 's']);
}

/** @param {number | undefined} value 0 to 1 */
export function percent(value) {
  return value === undefined ? NONE : `${Math.round(value * 100)}${NARROW_SPACE}%`;
}

/** @param {number} value all digits, in groups of three */
export function exact(value) {
  return String(value).replace(/\B(?=(\d{3})+$)/g, NARROW_SPACE);
}

/** @param {number} seconds */
export function duration(seconds) {
  const whole = Math.floor(seconds);
  const parts = [
    [Math.floor(whole / 86_400), 'd'],
    [Math.floor(whole / 3600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'min'],
    [whole % 60, 's'],
  ];
  const first = parts.findIndex(([value]) => value !== 0);
  return parts
    .slice(first === -1 ? 3 : first)
    .slice(0, 2)
    .map(([value, unit]) => `${value}${NARROW_SPACE}${unit}`)
    .join(' ');
}

/** @param {Date} time */
export function clock(time) {
  return [time.getHours(), time.getMinutes(), time.getSeconds()]
    .map((part) => String(part).padStart(2, '0'))
    .join(':');
}

/** @param {number} n @param {string} one @param {string} [many] */
export function plural(n, one, many = `${one}s`) {
  return `${exact(n)} ${n === 1 ? one : many}`;
}

/**
 * The part of an NQN that tells subsystems apart.
 *
 * @param {string} nqn
 */
export function shortNqn(nqn) {
  const colon = nqn.indexOf(':');
  return colon > 0 && colon < nqn.length - 1 ? nqn.slice(colon + 1) : nqn;
}

/** What is wrong with a field of a dialog. */
export class FieldError extends Error {
  /** @param {string} field its name, or the key of the parameter @param {string} message */
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

const SIZES = /** @type {const} */ ({ '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 });

/**
 * Bytes of a size like `512M`, `20 GiB` or `1.5T`. Throws a FieldError.
 *
 * @param {string} text
 */
export function parseSize(text) {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?$/i.exec(text.trim());
  const unit = /** @type {keyof typeof SIZES} */ (match?.[2]?.toUpperCase() ?? '');
  const value = match === null ? Number.NaN : Math.round(Number(match[1]) * SIZES[unit]);
  if (!Number.isSafeInteger(value) || value === 0) {
    throw new FieldError('size', 'A size is a number with a unit, like 512M or 20G.');
  }
  return value;
}
