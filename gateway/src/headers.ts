/** Headers on their way through: all as they were, but those that belong to one hop and those that tell who asked. */

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
  /** Its address. */
  readonly address: string;
  /** Host header as it sent it. */
  readonly host: string;
  /** What was taken off the path. */
  readonly prefix: string;
  /** In front stands a proxy of the operator's own, whose X-Forwarded-* are believed and extended. */
  readonly trusted: boolean;
}

/** Headers for the tenant. */
export function requestHeaders(from: Headers, client: Client): Headers {
  const headers = new Headers(from);
  dropHop(headers);
  const before = (name: string) => (client.trusted ? from.get(name) : null);
  for (const name of vouched) if (!client.trusted || name === "x-forwarded-prefix") headers.delete(name);
  const hops = before("x-forwarded-for");
  headers.set("X-Forwarded-For", hops ? `${hops}, ${client.address}` : client.address);
  headers.set("X-Forwarded-Proto", before("x-forwarded-proto") ?? "http");
  headers.set("X-Forwarded-Host", before("x-forwarded-host") ?? client.host);
  const prefix = (before("x-forwarded-prefix") ?? "") + client.prefix;
  if (prefix) headers.set("X-Forwarded-Prefix", prefix);
  headers.set("Host", client.host);
  // fetch would sign with its own name.
  if (!headers.has("user-agent")) headers.set("User-Agent", "");
  return headers;
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
