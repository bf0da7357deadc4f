/** The operations of a backend. */

export const Op = { READ: 0, WRITE: 1, FLUSH: 2 } as const;
export type Op = (typeof Op)[keyof typeof Op];
