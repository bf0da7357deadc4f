/** VERSION: what client and server agree on. Pure. vfio-user: VERSION. */
import { MAX_CLIENT_REGIONS } from '../limits.ts';
import {
  DEFAULT_MAX_DATA_XFER_SIZE,
  DEFAULT_MAX_MSG_FDS,
  VersionPayload,
  VFIO_USER_MAJOR,
  VFIO_USER_MINOR,
} from '../spec/vfio-user.ts';
import type { Message } from './codec.ts';
import { Refusal } from './refusal.ts';

export interface Terms {
  readonly minor: number;
  /** Most descriptors that the client takes in one message. */
  readonly clientMaxMsgFds: number;
  /** Most data bytes that the client takes in one message. */
  readonly clientMaxData: number;
  /** REGION_WRITE_MULTI may be used. */
  readonly writeMultiple: boolean;
  /**
   * The client is known to answer messages about its memory: it says how many regions, or what pages, it would have, as QEMU does. Others may lose
   * their place in the stream over a command that comes from the server (Cloud Hypervisor, SPDK's host), and are not asked without need.
   */
  readonly answersDma: boolean;
}

/** Descriptors that clients are told to send in one message at most. More are accepted: Cloud Hypervisor sends 16 whatever it is told. */
export const OFFERED_MSG_FDS = 8;
/** Data bytes of one message at most, both ways. */
export const MAX_DATA_XFER_SIZE = DEFAULT_MAX_DATA_XFER_SIZE;
/** A client's JSON is a few hundred bytes. */
const MAX_JSON_BYTES = 16 * 1024;

/** Agrees with a client, or throws a Refusal. */
export function negotiate(request: Message): { terms: Terms; payload: Uint8Array } {
  const { payload, view } = request;
  if (request.fds.length > 0) {
    throw new Refusal('EINVAL', 'VERSION takes no file descriptors');
  }
  if (payload.length < VersionPayload.size) {
    throw new Refusal('EINVAL', `a VERSION of ${payload.length} bytes`);
  }
  const { major, minor: clientMinor } = VersionPayload.read(view);
  if (major !== VFIO_USER_MAJOR) {
    throw new Refusal('EINVAL', `version ${major}.${clientMinor} is not spoken here`);
  }
  const minor = Math.min(clientMinor, VFIO_USER_MINOR);
  const json = payload.subarray(VersionPayload.size);
  const offer = parseOffer(json);
  const writeMultiple = booleanOf(offer, 'write_multiple');
  const clientMaxMsgFds = numberOf(offer, 'max_msg_fds', DEFAULT_MAX_MSG_FDS);
  const clientMaxData = numberOf(offer, 'max_data_xfer_size', DEFAULT_MAX_DATA_XFER_SIZE);

  const reply = encodeCapabilities(
    {
      max_msg_fds: OFFERED_MSG_FDS,
      ...(writeMultiple && { write_multiple: true }),
      max_data_xfer_size: Math.min(clientMaxData, MAX_DATA_XFER_SIZE),
      max_dma_maps: MAX_CLIENT_REGIONS,
    },
    json.length === 0 ? Number.POSITIVE_INFINITY : json.length,
  );
  const out = new Uint8Array(VersionPayload.size + reply.bytes.length);
  VersionPayload.write(new DataView(out.buffer), 0, { major: VFIO_USER_MAJOR, minor });
  out.set(reply.bytes, VersionPayload.size);
  return {
    terms: {
      minor,
      clientMaxMsgFds,
      clientMaxData,
      writeMultiple: reply.keys.includes('write_multiple'),
      answersDma: offer.max_dma_maps !== undefined || offer.pgsizes !== undefined,
    },
    payload: out,
  };
}

/**
 * The reply's JSON, with its NUL. QEMU takes no reply longer than its request, so keys are left out, the last first, until it fits. What
 * holds then is right too, but for `max_dma_maps`, which few clients heed. Cloud Hypervisor needs "capabilities" in any case.
 */
function encodeCapabilities(
  capabilities: Record<string, number | boolean>,
  room: number,
): { bytes: Uint8Array; keys: string[] } {
  const entries = Object.entries(capabilities);
  for (;;) {
    const text = JSON.stringify({ capabilities: Object.fromEntries(entries) });
    const bytes = new TextEncoder().encode(`${text}\0`);
    if (bytes.length <= room || entries.length === 0) {
      return { bytes, keys: entries.map(([key]) => key) };
    }
    entries.pop();
  }
}

type Offer = Readonly<Record<string, unknown>>;

/** The client's capabilities; none if it sent no JSON. */
function parseOffer(json: Uint8Array): Offer {
  if (json.length === 0) return {};
  if (json.length > MAX_JSON_BYTES) {
    throw new Refusal('EINVAL', `VERSION with ${json.length} bytes of JSON`);
  }
  if (json[json.length - 1] !== 0) {
    throw new Refusal('EINVAL', 'the JSON of VERSION does not end in NUL');
  }
  let value: unknown;
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(
      json.subarray(0, json.indexOf(0)),
    );
    value = JSON.parse(text);
  } catch {
    throw new Refusal('EINVAL', 'VERSION does not carry JSON');
  }
  const capabilities = objectOf(value, 'the JSON of VERSION').capabilities;
  return capabilities === undefined ? {} : objectOf(capabilities, 'capabilities');
}

function objectOf(value: unknown, what: string): Offer {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new Refusal('EINVAL', `${what} is not an object`);
  }
  return value as Offer;
}

function numberOf(offer: Offer, key: string, fallback: number): number {
  const value = offer[key] ?? fallback;
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
    throw new Refusal('EINVAL', `${key} is not a number`);
  }
  return value;
}

function booleanOf(offer: Offer, key: string): boolean {
  const value = offer[key] ?? false;
  if (typeof value !== 'boolean') throw new Refusal('EINVAL', `${key} is not a boolean`);
  return value;
}
