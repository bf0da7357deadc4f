/** UUIDs: their text form, and names turned into them (RFC 9562). */
import { createHash, randomUUID } from 'node:crypto';

export const UUID_PATTERN = '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$';
const UUID = new RegExp(UUID_PATTERN);

export function isUuid(text: string): boolean {
  return UUID.test(text);
}

/** A UUID (version 4) that nothing else has. */
export function randomUuid(): string {
  return randomUUID();
}

/** Our own namespace for version 5. */
const NAMESPACE = Buffer.from('5f0f1c2a6d8f4c0e9a3b7d41c6e28b95', 'hex');

/** The UUID (version 5) that a name always has. */
export function uuidFromName(name: string): string {
  const bytes = createHash('sha1').update(NAMESPACE).update(name).digest().subarray(0, 16);
  bytes[6] = (bytes[6] & 0x0f) | 0x50;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return formatUuid(bytes.toString('hex'));
}

/** 32 hex digits, lower-case with dashes. */
export function formatUuid(hex: string): string {
  return hex.toLowerCase().replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
