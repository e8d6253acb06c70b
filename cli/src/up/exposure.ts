/** What `warren up` says of who can reach what. Pure. */
import { tenantPorts } from "@warren/common/ports";

export interface Exposure {
  /** Address that tenants' HTTP listens on. */
  readonly host: string;
  readonly port: number;
  /** How the world reaches tenants, if a proxy stands in front. */
  readonly publicUrl: string | undefined;
  readonly trustForwarded: readonly string[];
}

export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\./.test(host);
}

/** Sentences for the operator, each a warning; none where nothing but this machine comes in. */
export function exposureText({ host, port, publicUrl, trustForwarded }: Exposure): string[] {
  const lines: string[] = [];
  if (!isLoopback(host)) {
    const where = host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
    lines.push(
      `tenants' HTTP listens on ${where}, without TLS: every machine that reaches this address reaches every tenant; the API, agents and metering stay on loopback`,
      `a tenant that listens on all addresses instead of HOST is reached past the gateway at a port of ${tenantPorts.from}-${tenantPorts.to}: let a firewall keep these closed`,
    );
  }
  if (publicUrl?.startsWith("https:") && trustForwarded.length === 0) {
    lines.push(
      "tenants do not learn that visitors come by https: name the addresses of the proxy in front with --trust-forwarded (docs/behind-a-proxy.md)",
    );
  }
  return lines;
}
