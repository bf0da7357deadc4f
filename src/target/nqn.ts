/** Names of subsystems and hosts (NVMe Base 2.0 §4.5), with the rules that SPDK applies to them. */
import { isUuid } from '../util/uuid.ts';

export const DISCOVERY_NQN = 'nqn.2014-08.org.nvmexpress.discovery';

const MAX_NQN_BYTES = 223;
const UUID_PREFIX = 'nqn.2014-08.org.nvmexpress:uuid:';
/** A label of a domain name, as RFC 1034 has it. */
const LABEL = '[a-zA-Z](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?';
const NQN = new RegExp(`^nqn\\.\\d{4}-\\d{2}\\.${LABEL}(?:\\.${LABEL})*:.+$`, 's');

/** Why a name is not a valid NQN, or `undefined` if it is one. */
export function nqnProblem(nqn: string): string | undefined {
  if (Buffer.byteLength(nqn) > MAX_NQN_BYTES) {
    return `an NQN has at most ${MAX_NQN_BYTES} bytes`;
  }
  if (nqn === DISCOVERY_NQN) {
    return undefined;
  }
  if (nqn.startsWith(UUID_PREFIX)) {
    return isUuid(nqn.slice(UUID_PREFIX.length)) ? undefined : `'${UUID_PREFIX}' needs a UUID`;
  }
  if (/[\0\p{Surrogate}]/u.test(nqn)) {
    return 'an NQN is UTF-8 text';
  }
  return NQN.test(nqn) ? undefined : 'an NQN is nqn.YYYY-MM.reverse.domain:name';
}
