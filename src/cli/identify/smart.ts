/** The SMART log as nvme-cli's `smart-log` shows it. */
import type { SmartLog } from '../../spec/logs.ts';
import type { StructValues } from '../../util/struct.ts';

type Smart = StructValues<(typeof SmartLog)['fields']>;

const plain = (value: number): string => String(value);
const percent = (value: number): string => `${value}%`;
/** Thousands of 512-byte units. */
const dataUnits = (value: number): string => {
  const names = ['B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB'];
  let bytes = value * 512_000;
  let name = 0;
  for (; bytes >= 1000 && name < names.length - 1; name += 1) {
    bytes /= 1000;
  }
  return `${value} (${bytes.toFixed(2)} ${names[name]})`;
};

/** Field, name in JSON, name in text, form in text. */
const ROWS: readonly (readonly [keyof Smart, string, string, (value: number) => string])[] = [
  ['criticalWarning', 'critical_warning', 'critical_warning', plain],
  [
    'compositeTemperature',
    'temperature',
    'temperature',
    (kelvin) => `${kelvin - 273} °C (${kelvin} K)`,
  ],
  ['availableSpare', 'avail_spare', 'available_spare', percent],
  ['availableSpareThreshold', 'spare_thresh', 'available_spare_threshold', percent],
  ['percentageUsed', 'percent_used', 'percentage_used', percent],
  [
    'enduranceGroupWarnings',
    'endurance_grp_critical_warning_summary',
    'endurance group critical warning summary',
    plain,
  ],
  ['dataUnitsRead', 'data_units_read', 'Data Units Read', dataUnits],
  ['dataUnitsWritten', 'data_units_written', 'Data Units Written', dataUnits],
  ['hostReads', 'host_read_commands', 'host_read_commands', plain],
  ['hostWrites', 'host_write_commands', 'host_write_commands', plain],
  ['controllerBusyMinutes', 'controller_busy_time', 'controller_busy_time', plain],
  ['powerCycles', 'power_cycles', 'power_cycles', plain],
  ['powerOnHours', 'power_on_hours', 'power_on_hours', plain],
  ['unsafeShutdowns', 'unsafe_shutdowns', 'unsafe_shutdowns', plain],
  ['mediaErrors', 'media_errors', 'media_errors', plain],
  ['errorLogEntries', 'num_err_log_entries', 'num_err_log_entries', plain],
  ['warningTemperatureMinutes', 'warning_temp_time', 'Warning Temperature Time', plain],
  [
    'criticalTemperatureMinutes',
    'critical_comp_time',
    'Critical Composite Temperature Time',
    plain,
  ],
  ['thermal1Transitions', 'thm_temp1_trans_count', 'Thermal Management T1 Trans Count', plain],
  ['thermal2Transitions', 'thm_temp2_trans_count', 'Thermal Management T2 Trans Count', plain],
  ['thermal1Seconds', 'thm_temp1_total_time', 'Thermal Management T1 Total Time', plain],
  ['thermal2Seconds', 'thm_temp2_total_time', 'Thermal Management T2 Total Time', plain],
];

export function smartText(smart: Smart | undefined): string[] {
  if (smart === undefined) {
    return ['Smart Log: the controller has none'];
  }
  const lines = ROWS.map(([field, , name, form]) => `${name.padEnd(40)}: ${form(smart[field])}`);
  return ['Smart Log of the controller:', ...lines];
}

export function smartJson(smart: Smart | undefined): Record<string, number> | null {
  return smart === undefined
    ? null
    : Object.fromEntries(ROWS.map(([field, name]) => [name, smart[field]]));
}
