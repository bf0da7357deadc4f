/** What a target does if nobody says otherwise: on the command line and in a program that embeds it. */
export const DEFAULTS = {
  /** Of a default disk that is made. Bytes. */
  diskSize: 2 ** 30,
  /** How long an idle reactor polls before it sleeps, and how long it sleeps at most. µs. */
  spinUs: 100,
  maxSleepUs: 5000,
  /** How long a clean stop may take. Seconds. */
  stopTimeout: 50,
} as const;
