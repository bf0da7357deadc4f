/** Host addresses, `to` not included. */
export interface HostRange {
  readonly from: number;
  readonly to: number;
}
