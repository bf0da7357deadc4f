/** What is logged, changed while the target runs; with SPDK's names and levels. There is one log, on stderr. */
import { Type } from 'typebox';
import { InvalidError } from '../../util/errors.ts';
import { COMPONENTS, type Component, type LogControl, type LogLevel } from '../../util/log.ts';
import { Bool, DONE, Text } from '../../util/schema.ts';
import { method } from '../dispatcher.ts';

const Nothing = Type.Object({});

/** SPDK's levels and ours. What SPDK tells of at NOTICE and at INFO is all one here. */
const LEVELS = {
  ERROR: 'error',
  WARNING: 'warn',
  NOTICE: 'info',
  INFO: 'info',
  DEBUG: 'debug',
} as const;
type SpdkLevel = keyof typeof LEVELS;
const LevelName = Type.Enum(Object.keys(LEVELS) as SpdkLevel[]);

/** SPDK's word for a level that the command line set. */
const NAMES: Readonly<Record<LogLevel, SpdkLevel>> = {
  silent: 'ERROR',
  fatal: 'ERROR',
  error: 'ERROR',
  warn: 'WARNING',
  info: 'INFO',
  debug: 'DEBUG',
  trace: 'DEBUG',
};

const ALL = 'all';

/** Flags that SPDK's users know, and where that is logged here. */
const SPDK_FLAGS: Readonly<Record<string, Component>> = {
  nvmf: 'nvme',
  nvmf_vfio: 'vfio-user',
  vfio_user: 'vfio-user',
};

export function logMethods(control: LogControl) {
  /** As it was set, since two of SPDK's levels are one of ours. */
  let name = NAMES[control.level];

  const setLevel = (level: string): true => {
    const wanted = level.toUpperCase();
    if (!(wanted in LEVELS)) {
      throw new InvalidError(`key 'level' must be one of ${Object.keys(LEVELS).join(', ')}`);
    }
    name = wanted as SpdkLevel;
    control.level = LEVELS[name];
    return true;
  };
  const getLevel = (): SpdkLevel => {
    // The level may have been changed by others.
    return LEVELS[name] === control.level ? name : NAMES[control.level];
  };
  const setFlag = (flag: string, on: boolean): true => {
    const component = Object.hasOwn(SPDK_FLAGS, flag) ? SPDK_FLAGS[flag] : flag;
    if (flag !== ALL && !COMPONENTS.includes(component as Component)) {
      throw new InvalidError(`key 'flag' must be one of ${[...COMPONENTS, ALL].join(', ')}`);
    }
    for (const each of flag === ALL ? COMPONENTS : [component as Component]) {
      control.setFlag(each, on);
    }
    return true;
  };

  const Level = Type.Object({ level: Text(`one of ${Object.keys(LEVELS).join(', ')}`) });
  const known = [...COMPONENTS, ALL].join(', ');
  const Flag = Type.Object({
    flag: Text(`one of ${known}; or as SPDK calls it: ${Object.keys(SPDK_FLAGS).join(', ')}`),
  });

  return [
    method({
      name: 'log_set_print_level',
      summary: 'Logs lines of this level and above.',
      phase: 'any',
      params: Level,
      result: DONE,
      call: ({ level }) => setLevel(level),
    }),
    method({
      name: 'log_get_print_level',
      summary: 'The level from which on lines are logged.',
      phase: 'any',
      params: Nothing,
      result: LevelName,
      call: getLevel,
    }),
    method({
      name: 'log_set_level',
      summary: 'The same as log_set_print_level: there is no second log in syslog.',
      phase: 'any',
      params: Level,
      result: DONE,
      call: ({ level }) => setLevel(level),
    }),
    method({
      name: 'log_get_level',
      summary: 'The same as log_get_print_level.',
      phase: 'any',
      params: Nothing,
      result: LevelName,
      call: getLevel,
    }),
    method({
      name: 'log_set_flag',
      summary: 'Logs the debug lines of a part of the target, whatever the level.',
      phase: 'any',
      params: Flag,
      result: DONE,
      call: ({ flag }) => setFlag(flag, true),
    }),
    method({
      name: 'log_clear_flag',
      summary: 'Undoes log_set_flag.',
      phase: 'any',
      params: Flag,
      result: DONE,
      call: ({ flag }) => setFlag(flag, false),
    }),
    method({
      name: 'log_get_flags',
      summary: 'The parts of the target that have a flag, and whether it is set.',
      phase: 'any',
      params: Nothing,
      result: Type.Record(Type.String(), Type.Boolean()),
      call: () => control.flags,
    }),
    method({
      name: 'log_enable_timestamps',
      summary: 'Whether log lines carry the time.',
      phase: 'any',
      params: Type.Object({ enabled: Bool('true at the start') }),
      result: DONE,
      call: ({ enabled }) => {
        control.timestamps = enabled;
        return true;
      },
    }),
  ];
}
