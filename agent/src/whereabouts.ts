/**
 * Where an instance listens, seen from those who are to reach it. Its port is its own on all addresses of the host, so
 * that one that listens on another address than it was told (`localhost` is ::1 for many programs) is served there. On
 * another port it is not: that may be anybody's at the next start. Pure.
 */
import { loopback } from "./address.ts";
import { type Listener, reachedAt, shownListener } from "./host/addresses.ts";

export type Whereabouts =
  /** Nothing of it listens. */
  | { readonly kind: "silent" }
  /** On its port, at 127.0.0.1 or at another address where gateways reach it. */
  | { readonly kind: "reachable"; readonly address: string }
  /** Only where it cannot be served. */
  | { readonly kind: "elsewhere"; readonly listeners: readonly Listener[] };

/**
 * @param listeners the instance's own
 * @param tenantHost address by which gateways reach the tenants of this node
 */
export function whereabouts(listeners: readonly Listener[], port: number, tenantHost: string): Whereabouts {
  if (listeners.length === 0) return { kind: "silent" };
  const addresses = listeners.filter((one) => one.port === port).map((one) => reachedAt(one.address));
  if (addresses.includes(loopback)) return { kind: "reachable", address: loopback };
  const other = addresses.find((address) =>
    // A link-local address says nothing without the name of an interface.
    tenantHost === loopback ? !/^fe[89ab]/.test(address) : address === tenantHost,
  );
  return other === undefined ? { kind: "elsewhere", listeners } : { kind: "reachable", address: other };
}

/** One sentence for the tenant's owner. */
export function elsewhereText(listeners: readonly Listener[], port: number, tenantHost: string): string {
  const where = [...new Set(listeners.map(shownListener))].slice(0, mostShown).join(", ");
  const onPort = listeners.some((one) => one.port === port);
  const remedy = onPort
    ? `gateways reach this node's tenants at ${tenantHost}: let it listen on the address in HOST`
    : "let it listen on the port in PORT and the address in HOST";
  return `it listens on ${where}, not on ${loopback}:${port} (${remedy})`;
}

const mostShown = 5;
