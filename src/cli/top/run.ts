/** `doorbell top`: looks at a target every interval, and shows what happened in it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { CliError, print } from '../output.ts';
import type { View } from './rates.ts';
import {
  eventLine,
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
  readonly once?: true;
  readonly json?: true;
}

/** Width of lines that no terminal limits. */
const PLAIN_COLUMNS = 132;
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
  };
  let seen = source.events.at(-1)?.seq ?? 0;
  do {
    await sleep(flags.interval * 1000);
    const view = await source.next();
    const events = source.events.filter(({ seq }) => seq > seen);
    seen = source.events.at(-1)?.seq ?? 0;
    if (flags.json) {
      print(JSON.stringify({ ...view, events }));
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
  #view: View;
  #trouble: string | undefined;
  /** Ends the wait for the next round. */
  #wake = new AbortController();

  constructor(source: Source, { interval, sort }: TopFlags, first: View) {
    this.#source = source;
    this.#interval = interval;
    this.#sort = sort;
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
    const sort = SORT_BY_KEY[key];
    if (key === 'q') {
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

  #draw(): void {
    const { columns, rows } = this.#terminal;
    const style: Style = {
      columns,
      colour: this.#colour,
      sort: this.#sort,
      reverse: this.#reverse,
      namespaces: this.#namespaces,
    };
    const status =
      this.#trouble !== undefined
        ? `trying again: ${this.#trouble}`
        : `${this.#paused ? 'paused' : `every ${this.#interval} s`}  sorted by ${this.#sort}${this.#reverse ? ' (reversed)' : ''}  h help  q quit`;
    this.#terminal.draw(
      screenLines(
        {
          view: this.#view,
          events: this.#source.events,
          help: this.#help,
          status,
          trouble: this.#trouble !== undefined,
        },
        rows,
        style,
      ),
    );
  }
}
