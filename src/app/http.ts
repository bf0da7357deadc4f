/** The HTTP server of a target, as the command line asks for it. */
import { readTokenFile } from '../http/access.ts';
import type { HttpAddress } from '../http/address.ts';
import { HttpServer } from '../http/server.ts';
import type { Dispatcher } from '../rpc/dispatcher.ts';
import { snapshot } from '../target/snapshot.ts';
import type { Target } from '../target/target.ts';
import type { Logger } from '../util/log.ts';

export interface HttpOptions {
  readonly address: HttpAddress;
  /** Holds the token that everybody must show. */
  readonly tokenFile?: string | undefined;
  /** Where a reverse proxy serves us. */
  readonly origins: readonly string[];
}

/** Rejects with InvalidError if the token file is missing or not fit, and with what listen says. */
export function serveHttp(
  { address, tokenFile, origins }: HttpOptions,
  target: Target,
  dispatcher: Dispatcher,
  log: Logger,
): Promise<HttpServer> {
  const { reactors, events } = target;
  return HttpServer.listen({
    address,
    origins,
    token: tokenFile === undefined ? undefined : readTokenFile(tokenFile),
    dispatcher,
    events,
    snapshot: () => snapshot(target),
    healthy: () => reactors.cores.every((_, index) => reactors.state(index).alive),
    log,
  });
}
