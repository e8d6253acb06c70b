/**
 * Who asks and how they address us, as far as that can be believed. A connection says where the next hop is; what is
 * behind it only that hop can tell, and it is believed where it is a proxy of the operator's own. So each hop is taken
 * from the right, as long as who vouches for it is trusted: the first that is not is the client. What a client says of
 * itself is left of that, and goes no further. Pure.
 *
 * Proxies speak X-Forwarded-* or Forwarded (RFC 7239). Where there is any of the former the latter is ignored: a proxy
 * that knows only one of them passes on a client's own word in the other.
 */
import { isIP } from "node:net";
import { forwardedElements } from "./rfc7239.ts";
import { plainAddress, type TrustedProxies } from "./trusted.ts";

export interface Origin {
  /** Addresses of the client, and then of each trusted proxy on the way; the last one is connected to us. */
  readonly hops: readonly string[];
  readonly proto: "http" | "https";
  /** What the client took us for, with its port if it named one. */
  readonly host: string;
  readonly port: string;
  /** What proxies took off the path. */
  readonly prefix: string;
  /** The proxy speaks Forwarded, and so do we. */
  readonly isRfc7239: boolean;
}

/** What came with a request. */
export interface Arrival {
  /** Who is connected to us. */
  readonly peer: string;
  /** The Host header. */
  readonly host: string;
  readonly header: (name: string) => string | null;
}

/** A hop that cannot be told, as RFC 7239 names it. */
const unknown = "unknown";
/** More proxies than anybody has. */
const mostHops = 32;

export function originOf({ peer, host, header }: Arrival, trusted: TrustedProxies): Origin {
  const plain = plainAddress(peer);
  const direct: Origin = { ...told("http", host, null), hops: [plain], prefix: "", isRfc7239: false };
  if (!trusted.has(plain)) return direct;
  const claims = claimsOf(header);
  const { hops, at } = believed(claims.hops, plain, trusted);
  const proto = aligned(claims.protos, at, claims.hops.length)?.toLowerCase() ?? "";
  const named = aligned(claims.hosts, at, claims.hops.length) ?? "";
  return {
    ...told(/^(https|wss)$/.test(proto) ? "https" : "http", isHost(named) ? named : host, claims.port),
    hops,
    prefix: claims.prefix,
    isRfc7239: claims.isRfc7239,
  };
}

/**
 * @param claimed hops, the client's first
 * @returns those to believe, and the place of the first of them in `claimed`
 */
function believed(
  claimed: readonly string[],
  peer: string,
  trusted: TrustedProxies,
): { hops: string[]; at: number } {
  const hops = [peer];
  let at = claimed.length;
  while (at > 0 && hops.length < mostHops && trusted.has(hops[0]!)) hops.unshift(claimed[--at]!);
  return { hops, at };
}

interface Claims {
  readonly hops: readonly string[];
  readonly protos: readonly string[];
  readonly hosts: readonly string[];
  readonly port: string | null;
  readonly prefix: string;
  readonly isRfc7239: boolean;
}

function claimsOf(header: Arrival["header"]): Claims {
  const list = (name: string) =>
    header(name)
      ?.split(",")
      .map((part) => part.trim()) ?? [];
  const [hops, protos, hosts] = [
    list("x-forwarded-for"),
    list("x-forwarded-proto"),
    list("x-forwarded-host"),
  ];
  const prefix = header("x-forwarded-prefix") ?? "";
  const plain = { prefix: isPath(prefix) ? prefix.replace(/\/+$/, "") : "" };
  const forwarded = header("forwarded");
  if (forwarded === null || hops.length + protos.length + hosts.length > 0) {
    return {
      ...plain,
      hops: hops.map(nodeOf),
      protos,
      hosts,
      port: header("x-forwarded-port"),
      isRfc7239: false,
    };
  }
  const elements = forwardedElements(forwarded);
  return {
    ...plain,
    hops: elements.map((element) => nodeOf(element.get("for") ?? unknown)),
    protos: elements.map((element) => element.get("proto") ?? ""),
    hosts: elements.map((element) => element.get("host") ?? ""),
    port: null,
    isRfc7239: true,
  };
}

/** What a list says of one hop: the same place where it has one for each, else what the last proxy said. */
function aligned(values: readonly string[], at: number, hops: number): string | undefined {
  return values.length === hops ? (values[at] ?? values.at(-1)) : values.at(-1);
}

/** An address without its port; a name that hides one, and what is none, is unknown. */
function nodeOf(text: string): string {
  const bare = /^\[([^\]]*)\](?::\w+)?$/.exec(text)?.[1] ?? text.replace(/^([\d.]+):\w+$/, "$1");
  const address = plainAddress(bare);
  return isIP(address) === 0 ? unknown : address;
}

function told(
  proto: Origin["proto"],
  host: string,
  port: string | null,
): Pick<Origin, "proto" | "host" | "port"> {
  const named = /:(\d{1,5})$/.exec(host)?.[1];
  const said = port !== null && /^\d{1,5}$/.test(port.trim()) ? port.trim() : undefined;
  return { proto, host, port: said ?? named ?? (proto === "https" ? "443" : "80") };
}

function isHost(text: string): boolean {
  return /^([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:\d{1,5})?$/.test(text);
}

function isPath(text: string): boolean {
  return /^\/[!-~]{0,1023}$/.test(text);
}
