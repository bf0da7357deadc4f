/** `doorbell top`: looks at a target every interval, and shows what happened in it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { CliError, print } from '../output.ts';
import type { View } from './rates.ts';
import {
  eventLine,
  filtered,
  headLines,
  type SortKey,
  type Style,
  screenLines,
  tableLines,
} from './render.ts';
import { Source } from './source.ts';
import { Terminal } from './terminal.ts';

export interface TopFlags {
  readonly socket: string;
  /** Seconds. */
  readonly interval: number;
  readonly sort: SortKey;
  readonly filter?: string;
  readonly once?: true;
  readonly json?: true;
}

/** Width of lines that no terminal limits. */
const PLAIN_COLUMNS = 132;
/** Lines that a page key scrolls. */
const PAGE_LINES = 10;
const INTERVALS = [0.2, 0.5, 1, 2, 5, 10, 30, 60];

/** Runs until it is stopped, or with `once` for one interval. Rejects with a CliError. */
export async function runTop(flags: TopFlags): Promise<void> {
  const source = new Source(flags.socket);
  // Whoever is not there at the start is not waited for.
  const first = await source.next();
  const live = process.stdout.isTTY && flags.json === undefined && flags.once === undefined;
  if (live) {
    await new LiveTop(source, flags, first).run();
    return;
  }
  const style: Style = {
    columns: PLAIN_COLUMNS,
    colour: false,
    sort: flags.sort,
    reverse: false,
    namespaces: true,
    filter: flags.filter ?? '',
  };
  let seen = source.events.at(-1)?.seq ?? 0;
  do {
    await sleep(flags.interval * 1000);
    const view = await source.next();
    const events = source.events.filter(({ seq }) => seq > seen);
    seen = source.events.at(-1)?.seq ?? 0;
    if (flags.json) {
      const controllers = filtered(view.controllers, flags.filter);
      print(JSON.stringify({ ...view, controllers, events }));
    } else {
      const shown = events.map((event) => eventLine(event, style));
      print(
        [view.time, ...headLines(view, style), ...tableLines(view, style), ...shown, ''].join('\n'),
      );
    }
  } while (flags.once === undefined);
}

const SORT_BY_KEY: Readonly<Record<string, SortKey>> = {
  i: 'iops',
  b: 'bandwidth',
  l: 'latency',
  o: 'queue',
  a: 'name',
};

const KEYS = {
  UP: ['k', '\x1b[A', '\x1bOA'],
  DOWN: ['j', '\x1b[B', '\x1bOB'],
  PAGE_UP: ['\x1b[5~'],
  PAGE_DOWN: ['\x1b[6~'],
  HOME: ['g', '\x1b[H', '\x1b[1~'],
} as const;
const ENTER = ['\r', '\n'];
const ESCAPE = '\x1b';
const BACKSPACE = ['\x7f', '\b'];

/** The full-screen view. */
class LiveTop {
  readonly #source: Source;
  readonly #terminal: Terminal;
  readonly #colour = (process.env.NO_COLOR ?? '') === '';
  #interval: number;
  #sort: SortKey;
  #reverse = false;
  #namespaces = true;
  #paused = false;
  #help = false;
  #filter: string;
  /** The filter is being typed. */
  #typing = false;
  #scroll = 0;
  #view: View;
  #trouble: string | undefined;
  /** Ends the wait for the next round. */
  #wake = new AbortController();

  constructor(source: Source, { interval, sort, filter = '' }: TopFlags, first: View) {
    this.#source = source;
    this.#interval = interval;
    this.#sort = sort;
    this.#filter = filter;
    this.#view = first;
    const { stdin, stdout } = process;
    this.#terminal = new Terminal(stdout, stdin.isTTY ? stdin : undefined, {
      key: (key) => this.#key(key),
      redraw: () => this.#draw(),
    });
  }

  async run(): Promise<never> {
    for (;;) {
      this.#draw();
      await sleep(this.#interval * 1000, undefined, { signal: this.#wake.signal }).catch(() => {});
      this.#wake = new AbortController();
      if (this.#paused) {
        continue;
      }
      try {
        this.#view = await this.#source.next();
        this.#trouble = undefined;
      } catch (error) {
        if (!(error instanceof CliError)) {
          throw error;
        }
        this.#trouble = error.message;
      }
    }
  }

  #key(key: string): void {
    if (this.#typing) {
      this.#type(key);
      this.#draw();
      return;
    }
    const sort = SORT_BY_KEY[key];
    const is = (name: keyof typeof KEYS) => KEYS[name].some((each) => each === key);
    if (key === '/') {
      this.#typing = true;
    } else if (is('UP')) {
      this.#scroll -= 1;
    } else if (is('DOWN')) {
      this.#scroll += 1;
    } else if (is('PAGE_UP')) {
      this.#scroll -= PAGE_LINES;
    } else if (is('PAGE_DOWN')) {
      this.#scroll += PAGE_LINES;
    } else if (is('HOME')) {
      this.#scroll = 0;
    } else if (key === 'q') {
      process.exit(0);
    } else if (sort !== undefined) {
      this.#sort = sort;
    } else if (key === 'r') {
      this.#reverse = !this.#reverse;
    } else if (key === 'n') {
      this.#namespaces = !this.#namespaces;
    } else if (key === 'h' || key === '?') {
      this.#help = !this.#help;
    } else if (key === ' ') {
      this.#paused = !this.#paused;
    } else if (key === '+') {
      this.#interval = INTERVALS.find((value) => value > this.#interval) ?? this.#interval;
    } else if (key === '-') {
      this.#interval = INTERVALS.findLast((value) => value < this.#interval) ?? this.#interval;
      this.#wake.abort();
    }
    this.#draw();
  }

  /** A key while the filter is typed. */
  #type(key: string): void {
    if (ENTER.includes(key)) {
      this.#typing = false;
    } else if (key === ESCAPE) {
      this.#typing = false;
      this.#filter = '';
    } else if (BACKSPACE.includes(key)) {
      this.#filter = this.#filter.slice(0, -1);
    } else if (key.length === 1 && key >= ' ') {
      this.#filter += key;
    }
    this.#scroll = 0;
  }

  /** The last line. */
  get #status(): string {
    if (this.#trouble !== undefined) {
      return `trying again: ${this.#trouble}`;
    }
    if (this.#typing) {
      return `filter: ${this.#filter}_  (Enter: done, Esc: none)`;
    }
    const pace = this.#paused ? 'paused' : `every ${this.#interval} s`;
    const order = `sorted by ${this.#sort}${this.#reverse ? ' (reversed)' : ''}`;
    const only = this.#filter === '' ? '' : `  only ${this.#filter}`;
    return `${pace}  ${order}${only}  h help  q quit`;
  }

  #draw(): void {
    const { columns, rows } = this.#terminal;
    const style: Style = {
      columns,
      colour: this.#colour,
      sort: this.#sort,
      reverse: this.#reverse,
      namespaces: this.#namespaces,
      filter: this.#filter,
    };
    const last = tableLines(this.#view, style).length - 2;
    this.#scroll = Math.max(0, Math.min(this.#scroll, last));
    this.#terminal.draw(
      screenLines(
        {
          view: this.#view,
          events: this.#source.events,
          help: this.#help,
          status: this.#status,
          scroll: this.#scroll,
          trouble: this.#trouble !== undefined,
        },
        rows,
        style,
      ),
    );
  }
}
