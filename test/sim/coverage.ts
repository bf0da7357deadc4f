/** What was tried in which state: a table of how often. */

export const STATES = [
  'any',
  'hung',
  'slow',
  'failing',
  'limited',
  'asleep',
  'unmapped',
  'resetting',
  'moving',
  'namespace',
  'memory',
  'shadow',
  'trapped',
  'full',
  'dying',
] as const;
export type State = (typeof STATES)[number];

export class Coverage {
  readonly #counts = new Map<string, number[]>();

  add(event: string, states: Iterable<State>, count = 1): void {
    let row = this.#counts.get(event);
    if (row === undefined) {
      row = STATES.map(() => 0);
      this.#counts.set(event, row);
    }
    for (const state of states) {
      row[STATES.indexOf(state)] += count;
    }
  }

  get rows(): [string, number[]][] {
    return [...this.#counts].sort(([a], [b]) => (a < b ? -1 : 1));
  }

  merge(rows: readonly (readonly [string, readonly number[]])[]): void {
    for (const [event, counts] of rows) {
      for (const [i, count] of counts.entries()) {
        this.add(event, [STATES[i]], count);
      }
    }
  }

  /** Pairs that never came. */
  get missing(): string[] {
    return this.rows.flatMap(([event, counts]) =>
      counts.flatMap((count, i) => (count === 0 ? [`${event} × ${STATES[i]}`] : [])),
    );
  }

  format(): string {
    const width = 11;
    const line = (cells: readonly (string | number)[]): string =>
      String(cells[0]).padEnd(16) +
      cells
        .slice(1)
        .map((cell) => String(cell).padStart(width))
        .join('');
    return [
      line(['', ...STATES]),
      ...this.rows.map(([event, counts]) => line([event, ...counts])),
    ].join('\n');
  }
}
