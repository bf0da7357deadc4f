/**
 * Structured logs on stderr, as JSON lines or as text. Owned by main; reactors do not log.
 *
 * Every logger belongs to a component, and those that speak of what a peer does have a limit. Both are looked up when a line is
 * written, so that thresholds and flags can change at any time, for all loggers there are.
 */
import { type Level, type Logger, pino } from 'pino';
import { RateLimit } from './log-limit.ts';
import { type LogSink, stderrSink } from './log-sink.ts';
import { formatLine } from './log-text.ts';

export type { Logger } from 'pino';

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogLevel = Level | 'silent';

export const LOG_FORMATS = ['json', 'text'] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

/** The parts of the target that can be made to log more than the rest. */
export const COMPONENTS = [
  'app',
  'bdev',
  'http',
  'nvme',
  'reactor',
  'rpc',
  'target',
  'vfio-user',
] as const;
export type Component = (typeof COMPONENTS)[number];

const { debug: DEBUG, info: INFO } = pino.levels.values;

/** What one peer may make one component write: lines from info up, and lines below that somebody asked for. */
const WINDOW_MS = 10_000;
const MAX_LINES = 20;
const MAX_DEBUG_LINES = 2000;
/** Characters of an error's message and stack. */
const MAX_ERROR_TEXT = 4096;

/** What decides whether a line is written. Changed by RPC. */
export class LogControl {
  level: LogLevel;
  /** Lines carry the time. */
  timestamps = true;
  readonly #flags = new Set<Component>();

  constructor(level: LogLevel) {
    this.level = level;
  }

  /** Whether each component's debug lines are written, whatever the level. */
  get flags(): Readonly<Record<Component, boolean>> {
    const flags = COMPONENTS.map((name) => [name, this.#flags.has(name)]);
    return Object.fromEntries(flags) as Record<Component, boolean>;
  }

  setFlag(component: Component, on: boolean): void {
    this.#flags[on ? 'add' : 'delete'](component);
  }

  /** `level`: pino's number for it. */
  admits(component: Component, level: number): boolean {
    return (
      (this.level !== 'silent' && level >= pino.levels.values[this.level]) ||
      (level >= DEBUG && this.#flags.has(component))
    );
  }
}

/** What a logger inherits from the one that it is a child of. */
interface Scope {
  readonly component: Component;
  readonly limit?: RateLimit;
  readonly debugLimit?: RateLimit;
}

const SCOPE = Symbol('scope');
type Scoped = Logger & { [SCOPE]?: Scope };

export interface LoggerOptions {
  readonly level: LogLevel;
  /** Default: text on a terminal, else JSON. */
  readonly format?: LogFormat | undefined;
  /** Default: stderr. */
  readonly sink?: LogSink | undefined;
}

/** The logger of the process, of component `app`, and its control. */
export function createLogger(options: LoggerOptions): {
  readonly log: Logger;
  readonly control: LogControl;
} {
  const control = new LogControl(options.level);
  const format = options.format ?? (process.stderr.isTTY ? 'text' : 'json');
  const sink = options.sink ?? stderrSink();
  const log: Scoped = pino(
    {
      // The control decides, line by line.
      level: 'trace',
      timestamp: () => (control.timestamps ? `,"time":${Date.now()}` : ''),
      serializers: { err: describe },
      hooks: {
        logMethod(args, method, level) {
          const { component, limit, debugLimit } = (this as Scoped)[SCOPE] ?? { component: 'app' };
          if (!control.admits(component, level)) {
            return;
          }
          if ((level < INFO ? debugLimit : limit)?.take() !== false) {
            method.apply(this, args);
          }
        },
      },
    },
    new LineStream(format, sink, (lost) => log.warn({ lost }, 'lines were lost: stderr was full')),
  );
  log[SCOPE] = { component: 'app' };
  return { log, control };
}

/** Asks pino for the level of each line. */
const METADATA: unique symbol = Symbol.for('pino.metadata');

/** What pino writes to. */
class LineStream {
  readonly [METADATA] = true;
  lastLevel = 0;
  readonly #format: LogFormat;
  readonly #sink: LogSink;
  readonly #tellLost: (lost: number) => void;
  #lost = 0;

  constructor(format: LogFormat, sink: LogSink, tellLost: (lost: number) => void) {
    this.#format = format;
    this.#sink = sink;
    this.#tellLost = tellLost;
  }

  write(json: string): void {
    const line = this.#format === 'json' ? json : formatLine(json);
    if (!this.#sink(line, this.lastLevel)) {
      this.#lost += 1;
    } else if (this.#lost > 0) {
      const lost = this.#lost;
      this.#lost = 0;
      this.#tellLost(lost);
    }
  }
}

/** A logger of a component. */
export function componentLogger(
  log: Logger,
  component: Component,
  bindings: Readonly<Record<string, unknown>> = {},
): Logger {
  const child: Scoped = log.child({ component, ...bindings });
  child[SCOPE] = { component };
  return child;
}

/**
 * A logger of a component for what one peer causes: more than some lines in 10 s are counted instead of written, and a line says
 * how many. Its children share the limit.
 */
export function peerLogger(
  log: Logger,
  component: Component,
  bindings: Readonly<Record<string, unknown>>,
): Logger {
  const child: Scoped = componentLogger(log, component, bindings);
  // Not limited itself.
  const reporter = componentLogger(log, component, bindings);
  const limit = (lines: number, level: 'warn' | 'debug') =>
    new RateLimit(lines, WINDOW_MS, (suppressed, windowMs) => {
      reporter[level]({ suppressed }, `${suppressed} more in ${windowMs / 1000} s`);
    });
  child[SCOPE] = {
    component,
    limit: limit(MAX_LINES, 'warn'),
    debugLimit: limit(MAX_DEBUG_LINES, 'debug'),
  };
  return child;
}

/** An error for the log, of bounded size. */
function describe(error: unknown): unknown {
  const described = pino.stdSerializers.err(error as Error);
  for (const key of ['message', 'stack'] as const) {
    const text: unknown = described?.[key];
    if (typeof text === 'string' && text.length > MAX_ERROR_TEXT) {
      Object.assign(described, { [key]: `${text.slice(0, MAX_ERROR_TEXT)}…` });
    }
  }
  return described;
}
