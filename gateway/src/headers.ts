/** Headers on their way through: all as they were, but those that belong to one hop and those that tell who asked. */

import type { Origin } from "./origin.ts";
import { forwardedElement } from "./rfc7239.ts";

/** RFC 9110 section 7.6.1, and the proxy's own. `TE` and `Trailer` go too, since fetch carries no trailers. */
const hopByHop = [
  "connection",
  "keep-alive",
  "proxy-connection",
  "proxy-authenticate",
  "proxy-authorization",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
];

/** Said by the gateway alone: a tenant may believe them. */
const vouched = [
  "forwarded",
  "x-forwarded-for",
  "x-forwarded-host",
  "x-forwarded-port",
  "x-forwarded-prefix",
  "x-forwarded-proto",
  "x-real-ip",
];

/** What the gateway knows of a client. */
export interface Client {
  readonly origin: Origin;
  /** Host header for the tenant. */
  readonly host: string;
  /** What was taken off the path. */
  readonly prefix: string;
}

/** Headers for the tenant. */
export function requestHeaders(from: Headers, { origin, host, prefix }: Client): Headers {
  const headers = new Headers(from);
  dropHop(headers);
  for (const name of vouched) headers.delete(name);
  headers.set("X-Forwarded-For", origin.hops.join(", "));
  headers.set("X-Forwarded-Proto", origin.proto);
  headers.set("X-Forwarded-Host", origin.host);
  headers.set("X-Forwarded-Port", origin.port);
  // The client, whatever proxies stand in between: a tenant need not know how many there are.
  headers.set("X-Real-IP", origin.hops[0]!);
  if (origin.prefix + prefix) headers.set("X-Forwarded-Prefix", origin.prefix + prefix);
  if (origin.isRfc7239) headers.set("Forwarded", forwardedOf(origin));
  headers.set("Host", host);
  // fetch would sign with its own name.
  if (!headers.has("user-agent")) headers.set("User-Agent", "");
  return headers;
}

function forwardedOf({ hops, proto, host }: Origin): string {
  return hops.map((hop, i) => forwardedElement(hop, i === 0 ? { host, proto } : {})).join(", ");
}

/** Headers for the client; several Set-Cookie stay several. */
export function responseHeaders(from: Headers): Headers {
  const headers = new Headers(from);
  dropHop(headers);
  return headers;
}

function dropHop(headers: Headers): void {
  const named = headers.get("connection");
  if (named) {
    for (const name of named.split(",")) {
      const token = name.trim();
      // A client must not strip what the gateway or the tenant relies on.
      if (/^[\w!#$%&'*+.^`|~-]+$/.test(token) && !/^(host|content-length|cookie)$/i.test(token))
        headers.delete(token);
    }
  }
  for (const name of hopByHop) headers.delete(name);
}
