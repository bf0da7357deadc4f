/** Tables for a terminal: columns as wide as they need to be. */

export interface Column {
  readonly title: string;
  /** Text to the left, by default; numbers to the right. */
  readonly align?: 'left' | 'right';
}

/** Lines without an end; the first has the titles. A row may be shorter than the others. */
export function formatTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
): string[] {
  const titles = columns.map(({ title }) => title);
  const lines = [titles, ...rows];
  const widths = columns.map((_, i) => Math.max(...lines.map((line) => line[i]?.length ?? 0)));
  return lines.map((line) =>
    columns
      .map(({ align }, i) => {
        const cell = line[i] ?? '';
        return align === 'right' ? cell.padStart(widths[i]) : cell.padEnd(widths[i]);
      })
      .join('  ')
      .trimEnd(),
  );
}
