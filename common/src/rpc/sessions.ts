/** HTTP/2 sessions of a client, with connect-node's ping made harmless. */
import type { ClientHttp2Session, ClientHttp2Stream } from "node:http2";
import { Http2SessionManager } from "@connectrpc/connect-node";

/**
 * connect-node starts its ping timer anew whenever a stream closes, even if its session was destroyed before (its owner
 * closed it, its server was killed). The ping then throws out of the timer, into nobody's hands. Here such a ping just
 * says that it was not sent.
 */
export class Sessions extends Http2SessionManager {
  readonly #guarded = new WeakSet<ClientHttp2Session>();

  override async request(...args: Parameters<Http2SessionManager["request"]>): Promise<ClientHttp2Stream> {
    const stream = await super.request(...args);
    const { session } = stream;
    if (session && !this.#guarded.has(session as ClientHttp2Session)) {
      this.#guarded.add(session as ClientHttp2Session);
      const ping = session.ping.bind(session) as (...args: unknown[]) => boolean;
      session.ping = (...args: unknown[]) => !session.destroyed && !session.closed && ping(...args);
    }
    return stream;
  }
}
