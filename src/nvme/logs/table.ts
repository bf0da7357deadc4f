/** The log pages that there are: identifier → what Get Log Page gives. NVMe Base 2.0 §5.16.1. Owned by main. */
import type { Lpa } from '../../spec/identify.ts';
import { Afi, FirmwareSlotLog, Lid, TELEMETRY_CREATE } from '../../spec/logs.ts';
import type { AdminContext } from '../admin/command.ts';
import { FORWARDED_COMMANDS } from '../forwarded.ts';
import { IO_COMMANDS } from '../io-commands.ts';
import { padded } from '../text.ts';
import { commandEffects, featureEffects, supportedLogs } from './supported.ts';

/** Of Get Log Page: the log specific parameter. */
export interface LogRequest {
  readonly lsp: number;
}

export interface LogPage {
  readonly lid: number;
  /** The bit of LPA that says that there is such a page. */
  readonly lpa?: keyof (typeof Lpa)['fields'];
  /** The whole page. */
  readonly page: (context: AdminContext) => Uint8Array;
  /** What must come before that. */
  readonly prepare?: (context: AdminContext, request: LogRequest) => Promise<void> | undefined;
  /** It was read to the host's satisfaction (not with Retain Asynchronous Event): what the controller forgets then. */
  readonly read?: (context: AdminContext) => void;
}

export const LOG_PAGES: readonly LogPage[] = [
  {
    lid: Lid.SUPPORTED,
    lpa: 'supportedLogs',
    page: () => supportedLogs(LOG_PAGES.map(({ lid }) => lid)),
  },
  { lid: Lid.ERROR, page: ({ errors }) => errors.page() },
  {
    lid: Lid.SMART,
    page: ({ health, host, errors }) => health.page(host.ioTotals(), errors.count),
  },
  {
    lid: Lid.FIRMWARE_SLOT,
    page: ({ config }) =>
      FirmwareSlotLog.encode({
        afi: Afi.encode({ active: 1 }),
        frs1: padded(config.firmwareRevision, 8),
      }),
  },
  {
    lid: Lid.CHANGED_NAMESPACES,
    page: ({ changed }) => changed.page(),
    read: ({ changed }) => changed.clear(),
  },
  {
    lid: Lid.COMMAND_EFFECTS,
    lpa: 'commandEffects',
    page: ({ commands }) => commandEffects(commands, [...IO_COMMANDS, ...FORWARDED_COMMANDS]),
  },
  { lid: Lid.SELF_TEST, page: ({ selfTests }) => selfTests.page() },
  {
    lid: Lid.TELEMETRY_HOST,
    lpa: 'telemetry',
    prepare: ({ telemetry }, { lsp }) =>
      (lsp & TELEMETRY_CREATE) === 0 ? undefined : telemetry.gather(),
    page: ({ telemetry }) => telemetry.hostPage(),
  },
  { lid: Lid.TELEMETRY_CONTROLLER, page: ({ telemetry }) => telemetry.controllerPage() },
  { lid: Lid.FEATURE_EFFECTS, page: ({ features }) => featureEffects(features.all) },
  {
    lid: Lid.RESERVATION,
    page: ({ reservations }) => reservations.page(),
    read: (context) => {
      context.reservations.read();
      context.tellReservations();
    },
  },
  { lid: Lid.SANITIZE, page: ({ host }) => host.sanitize.page() },
];

export function findLogPage(lid: number): LogPage | undefined {
  return LOG_PAGES.find((page) => page.lid === lid);
}
