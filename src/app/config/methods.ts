/** The methods of a target as far as a configuration is concerned: before there is a target, or without one. */
import { pino } from 'pino';
import { Dispatcher } from '../../rpc/dispatcher.ts';
import { documentedMethods } from '../reference.ts';
import type { MethodTable } from './spdk.ts';

export function methodTable(): MethodTable {
  return new Dispatcher(documentedMethods(), pino({ level: 'silent' }));
}
