/** The admin commands that there are, by subject. docs/extending.md says how one is added. Owned by main. */
import type { ControllerConfig } from '../host.ts';
import type { AdminCommand } from './command.ts';
import { CONTROLLER_COMMANDS } from './controller.ts';
import { EVENT_COMMANDS } from './events.ts';
import { FEATURE_COMMANDS } from './features.ts';
import { FIRMWARE_COMMANDS } from './firmware.ts';
import { FORMAT_COMMANDS } from './format.ts';
import { IDENTIFY_COMMANDS } from './identify.ts';
import { QUEUE_COMMANDS } from './io-queues.ts';
import { LOG_COMMANDS } from './logs.ts';
import { SANITIZE_COMMANDS } from './sanitize.ts';
import { SELF_TEST_COMMANDS } from './self-test.ts';

/** Of any controller. */
export const ADMIN_COMMANDS: readonly AdminCommand[] = [
  ...QUEUE_COMMANDS,
  ...LOG_COMMANDS,
  ...IDENTIFY_COMMANDS,
  ...FEATURE_COMMANDS,
  ...EVENT_COMMANDS,
  ...CONTROLLER_COMMANDS,
  ...FIRMWARE_COMMANDS,
  ...SELF_TEST_COMMANDS,
  ...FORMAT_COMMANDS,
  ...SANITIZE_COMMANDS,
];

/** Of a controller of this kind. */
export function adminCommands(config: ControllerConfig): readonly AdminCommand[] {
  return ADMIN_COMMANDS.filter(({ offered }) => offered(config));
}
