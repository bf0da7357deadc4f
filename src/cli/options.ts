/** What several commands share: parsers of option values, the option that names the JSON-RPC socket. */
import { InvalidArgumentError, Option } from 'commander';

const DEFAULT_RPC_SOCKET = '/var/tmp/doorbell.sock';

/** Turns what a parser throws into commander's error, which names the option. */
export function parsed<T>(parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text);
    } catch (error) {
      throw new InvalidArgumentError((error as Error).message);
    }
  };
}

/** A decimal integer in a range, both ends included. */
export const integer = (minimum: number, maximum: number) =>
  parsed((text: string): number => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < minimum || value > maximum) {
      throw new Error(`It must be an integer from ${minimum} to ${maximum}.`);
    }
    return value;
  });

/** The path of the JSON-RPC socket, under the option `flags`; an environment variable has it for all commands. */
export const rpcSocketOption = (flags: string) =>
  new Option(`${flags} <path>`, 'path of the JSON-RPC socket')
    .env('DOORBELL_RPC_SOCKET')
    .argParser(
      parsed((path: string) => {
        if (path === '') {
          throw new Error('It must not be empty.');
        }
        return path;
      }),
    )
    .default(DEFAULT_RPC_SOCKET);
