/** `doorbell top`'s picture, as lines: pure. What does not fit the terminal is left out, columns of less interest first. */
import type { TargetEvent } from '../../target/events.ts';
import { binarySize } from '../size.ts';
import type { ControllerRow, IoRate, ReactorLoad, View } from './rates.ts';

export const SORT_KEYS = ['iops', 'bandwidth', 'latency', 'queue', 'name'] as const;
export type SortKey = (typeof SORT_KEYS)[number];

export interface Style {
  readonly columns: number;
  readonly colour: boolean;
  readonly sort: SortKey;
  readonly reverse: boolean;
  /** A line for each namespace below its controller. */
  readonly namespaces: boolean;
  /** Only controllers whose socket, NQN or bdev has this in its name; empty: all. */
  readonly filter?: string;
}

/** Text of one terminal line, in pieces of one look each. */
type Look = 'plain' | 'bold' | 'dim' | 'good' | 'warn' | 'bad' | 'title';
type Piece = readonly [text: string, look: Look];

const SGR: Readonly<Record<Look, string>> = {
  plain: '',
  bold: '1',
  dim: '2',
  good: '32',
  warn: '33',
  bad: '31',
  title: '7',
};

const printable = (text: string): string => text.replace(/[^\x20-\x7e]/g, '?');

/** Cuts at the width, then colours. Text of a peer cannot act on the terminal. */
function line(pieces: readonly Piece[], { columns, colour }: Style): string {
  let left = columns;
  let out = '';
  for (const [text, look] of pieces) {
    const part = printable(text).slice(0, left);
    left -= part.length;
    out += colour && SGR[look] !== '' && part !== '' ? `\x1b[${SGR[look]}m${part}\x1b[0m` : part;
  }
  return colour ? out : out.trimEnd();
}

/** At most 4 digits and a unit, as 12.3K. */
export function short(value: number): string {
  const units = ['', 'K', 'M', 'G', 'T'];
  let scaled = value;
  let unit = 0;
  for (; scaled >= 999.5 && unit < units.length - 1; unit += 1) {
    scaled /= 1000;
  }
  const digits = unit === 0 || scaled >= 99.95 ? 0 : 1;
  return `${scaled.toFixed(digits)}${units[unit]}`;
}

/** Nanoseconds as µs, ms or s. */
export function latency(ns: number | undefined): string {
  if (ns === undefined) {
    return '-';
  }
  const [value, unit] = ns < 1e6 ? [ns / 1e3, 'us'] : ns < 1e9 ? [ns / 1e6, 'ms'] : [ns / 1e9, 's'];
  return `${value.toFixed(value < 99.95 ? 1 : 0)}${unit}`;
}

const mebibytes = (bytes: number): string => {
  const value = bytes / 2 ** 20;
  return value === 0 ? '0' : value.toFixed(value < 99.95 ? 1 : 0);
};

const duration = (seconds: number): string => {
  const whole = Math.floor(seconds);
  const [days, rest] = [Math.floor(whole / 86_400), whole % 86_400];
  const clock = [rest / 3600, (rest % 3600) / 60, rest % 60]
    .map((part) => String(Math.floor(part)).padStart(2, '0'))
    .join(':');
  return days > 0 ? `${days}d ${clock}` : clock;
};

interface Column {
  readonly title: string;
  readonly width: number;
  /** Columns with a higher number go first when the terminal is narrow. */
  readonly rank: number;
  readonly text: (rate: IoRate) => string;
}

const COLUMNS: readonly Column[] = [
  { title: 'IOPS', width: 7, rank: 0, text: ({ iops }) => short(iops) },
  { title: 'READ', width: 7, rank: 5, text: ({ readIops }) => short(readIops) },
  { title: 'WRITE', width: 7, rank: 5, text: ({ writeIops }) => short(writeIops) },
  { title: 'R MiB/s', width: 8, rank: 2, text: ({ readBytes }) => mebibytes(readBytes) },
  { title: 'W MiB/s', width: 8, rank: 2, text: ({ writeBytes }) => mebibytes(writeBytes) },
  { title: 'P50', width: 8, rank: 4, text: ({ p50Ns }) => latency(p50Ns) },
  { title: 'P99', width: 8, rank: 3, text: ({ p99Ns }) => latency(p99Ns) },
  { title: 'ERR/s', width: 6, rank: 6, text: ({ errors }) => short(errors) },
];
const QUEUE_WIDTH = 12;
const QUEUE_RANK = 4;
const NAME_MIN = 28;

/** The rates' columns that leave room for a name, and whether the queues' column does too. */
function fitting(columns: number): { shown: readonly Column[]; queue: boolean } {
  for (let rank = 6; rank > 0; rank -= 1) {
    const shown = COLUMNS.filter((column) => column.rank <= rank);
    const queue = QUEUE_RANK <= rank;
    const width = shown.reduce(
      (sum, column) => sum + column.width + 1,
      queue ? QUEUE_WIDTH + 1 : 0,
    );
    if (width + NAME_MIN <= columns) {
      return { shown, queue };
    }
  }
  return { shown: COLUMNS.filter(({ rank }) => rank === 0), queue: false };
}

/** Sorted by a key: the largest first, names in order of the alphabet; ties by name, so that rows do not dance. */
export function sorted(
  rows: readonly ControllerRow[],
  key: SortKey,
  reverse: boolean,
): ControllerRow[] {
  const value = ({ rate, outstanding }: ControllerRow): number => {
    switch (key) {
      case 'iops':
        return rate?.iops ?? -1;
      case 'bandwidth':
        return rate === undefined ? -1 : rate.readBytes + rate.writeBytes;
      case 'latency':
        return rate?.p99Ns ?? -1;
      case 'queue':
        return outstanding;
      case 'name':
        return 0;
    }
  };
  const order = rows.toSorted(
    (a, b) => value(b) - value(a) || compareText(a.socket, b.socket) || compareText(a.nqn, b.nqn),
  );
  return reverse ? order.reverse() : order;
}

/** Those that a filter leaves. */
export function filtered(rows: readonly ControllerRow[], filter = ''): readonly ControllerRow[] {
  const wanted = filter.toLowerCase();
  return rows.filter(({ socket, nqn, namespaces }) =>
    [socket, nqn, ...namespaces.map(({ bdev }) => bdev)].some((name) =>
      name.toLowerCase().includes(wanted),
    ),
  );
}

const compareText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

function bar(load: number | undefined, width: number): string {
  const filled = Math.round((load ?? 0) * width);
  return `[${'|'.repeat(filled)}${' '.repeat(width - filled)}]`;
}

const loadLook = (load: number): Look => (load > 0.9 ? 'bad' : load > 0.6 ? 'warn' : 'good');

/** Reactors beside each other, as many as fit. */
function reactorLines(reactors: readonly ReactorLoad[], style: Style): string[] {
  const CELL = 40;
  const perLine = Math.max(1, Math.floor(style.columns / CELL));
  const cells = reactors.map(({ index, core, alive, load, queuePairs }): Piece[] => {
    const head = `${index} cpu ${core} `.padEnd(10);
    if (!alive) {
      return [[`${head}lost`.padEnd(CELL), 'bad']];
    }
    const percent = load === undefined ? '   -' : `${Math.round(load * 100)}%`.padStart(4);
    const tail = `${percent} ${queuePairs} queues`;
    const width = CELL - 1 - head.length - tail.length - 3;
    return [
      [head, 'plain'],
      [bar(load, width), loadLook(load ?? 0)],
      [` ${tail} `.padEnd(CELL - head.length - width - 2), 'plain'],
    ];
  });
  const lines: string[] = [];
  for (let i = 0; i < cells.length; i += perLine) {
    lines.push(line(cells.slice(i, i + perLine).flat(), style));
  }
  return lines;
}

/** What there is without anything that may be cut: the summary and the reactors. */
export function headLines(view: View, style: Style): string[] {
  const { total } = view;
  const rates =
    total === undefined
      ? 'measuring'
      : `${short(total.iops)} IOPS  ${mebibytes(total.readBytes)} MiB/s read  ${mebibytes(total.writeBytes)} MiB/s written  p99 ${latency(total.p99Ns)}`;
  const clients = view.controllers.filter(({ state }) => state !== 'waiting').length;
  return [
    line(
      [
        [`doorbell ${view.version}`, 'bold'],
        [
          `  up ${duration(view.uptimeSeconds)}  ${clients} of ${view.controllers.length} sockets in use  rss ${binarySize(view.rss)}  guests ${binarySize(view.guestBytes)}`,
          'plain',
        ],
      ],
      style,
    ),
    line([[rates, 'bold']], style),
    ...reactorLines(view.reactors, style),
  ];
}

/** The table, its title first. */
export function tableLines(view: View, style: Style): string[] {
  const { shown, queue } = fitting(style.columns);
  const used = shown.reduce((sum, { width }) => sum + width + 1, queue ? QUEUE_WIDTH + 1 : 0);
  const nameWidth = Math.max(1, style.columns - used);
  const cell = (text: string, width: number) => ` ${text.padStart(width)}`;
  const rates = (rate: IoRate | undefined) =>
    shown.map(({ width, text }) => cell(rate === undefined ? '-' : text(rate), width)).join('');
  const titles = shown.map((column) => cell(column.title, column.width)).join('');
  const queueTitle = queue ? cell('QUEUED', QUEUE_WIDTH) : '';
  const lines = [line([[fit('CONTROLLER', nameWidth) + titles + queueTitle, 'title']], style)];
  const rows = filtered(view.controllers, style.filter);
  for (const row of sorted(rows, style.sort, style.reverse)) {
    const occupied = row.state === 'waiting' ? '-' : `${row.outstanding}/${row.entries}`;
    const queued = queue ? cell(occupied, QUEUE_WIDTH) : '';
    const note = row.state === 'on' ? '' : row.state === 'off' ? ' (not enabled)' : ' (no client)';
    lines.push(
      line(
        [
          [
            fit(fitEnd(row.socket, nameWidth - note.length) + note, nameWidth),
            row.state === 'on' ? 'bold' : 'dim',
          ],
          [rates(row.rate) + queued, row.state === 'on' ? 'plain' : 'dim'],
        ],
        style,
      ),
    );
    if (style.namespaces && row.state !== 'waiting') {
      for (const { nsid, bdev, rate } of row.namespaces) {
        lines.push(
          line(
            [
              [fit(`  ${nsid} ${bdev}`, nameWidth), 'dim'],
              [rates(rate), 'dim'],
            ],
            style,
          ),
        );
      }
    }
  }
  if (rows.length === 0) {
    const none =
      view.controllers.length === 0 ? 'no subsystem has a listener' : 'none has that name';
    lines.push(line([[none, 'dim']], style));
  }
  return lines;
}

/** The title, the lines from `scroll` on, and how many more there would be. */
function cut(
  [title, ...body]: readonly string[],
  room: number,
  scroll: number,
  style: Style,
): readonly string[] {
  if (body.length < room) {
    return [title, ...body];
  }
  const shown = Math.max(0, room - 2);
  const above = Math.min(scroll, body.length - shown);
  const more = `  ${body.length - shown} more lines${above > 0 ? `, ${above} of them above` : ''}`;
  const picture = [title, ...body.slice(above, above + shown), line([[more, 'dim']], style)];
  return room > 1 ? picture : picture.slice(-room, room > 0 ? undefined : 0);
}

const fit = (text: string, width: number): string =>
  text.slice(0, Math.max(0, width)).padEnd(width);

/** Paths differ at their end: the beginning goes. */
const fitEnd = (text: string, width: number): string =>
  text.length <= width ? text : `..${text.slice(text.length - Math.max(0, width - 2))}`;

/** Events that need somebody. */
const BAD: ReadonlySet<string> = new Set([
  'error',
  'reactor-lost',
  'write-back-failed',
  'bdev-disconnected',
]);

/** An event as one line. */
export function eventLine(event: TargetEvent, style: Style): string {
  const { type, time, seq: _, ...what } = event;
  const text = Object.entries(what)
    .map(([name, value]) => (name === 'message' ? `${value}` : `${name}=${value}`))
    .join(' ');
  const look: Look = BAD.has(type) ? 'bad' : type === 'guest-reset' ? 'warn' : 'plain';
  return line(
    [
      [`${time.slice(11, 19)} `, 'dim'],
      [type.padEnd(20), look],
      [` ${text}`, 'plain'],
    ],
    style,
  );
}

export const HELP = [
  'i  sort by IOPS            l  sort by p99 latency',
  'b  sort by bandwidth       o  sort by occupied queues',
  'a  sort by name            r  reverse the order',
  'n  namespaces on or off    space  pause',
  '/  filter by name          up, down, page up, page down  scroll',
  '+ -  longer, shorter interval',
  'h  this help               q  quit',
];

export interface Screen {
  readonly view: View | undefined;
  readonly events: readonly TargetEvent[];
  /** The last line: what is wrong, or a reminder. */
  readonly status: string;
  readonly trouble: boolean;
  readonly help: boolean;
  /** Lines of the table that are above the picture. */
  readonly scroll?: number;
}

/** The whole picture: exactly `rows` lines at most. */
export function screenLines(screen: Screen, rows: number, style: Style): string[] {
  const { view, events, help, status, trouble, scroll = 0 } = screen;
  const last = line([[status, trouble ? 'bad' : 'dim']], style);
  const space = rows - 1;
  const head = view === undefined ? [] : headLines(view, style);
  const lines = head.slice(0, Math.max(0, space));
  if (help) {
    lines.push('', ...HELP.map((text) => line([[text, 'plain']], style)));
  } else if (view !== undefined) {
    const table = tableLines(view, style);
    const room = space - lines.length - 1;
    // Events get a third of what the head leaves, more if the table does not need it.
    const eventRoom = Math.min(
      events.length,
      Math.max(Math.floor(room / 3), room - table.length - 2),
    );
    const eventLines = eventRoom > 0 ? events.slice(-eventRoom) : [];
    const tableRoom = room - (eventLines.length > 0 ? eventLines.length + 1 : 0);
    lines.push('', ...cut(table, tableRoom, scroll, style));
    if (eventLines.length > 0) {
      const filler = space - lines.length - eventLines.length;
      lines.push(...Array.from({ length: Math.max(0, filler) }, () => ''));
      lines.push(...eventLines.map((event) => eventLine(event, style)));
    }
  }
  return [...lines.slice(0, Math.max(0, space)), last];
}
