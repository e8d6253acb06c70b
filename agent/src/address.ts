/** Where a node's tenants are, for those who call them. */
import { lookup } from "node:dns/promises";
import { withDeadline } from "@warren/common/time";
import { AgentStartError } from "./errors.ts";
import { messageOf } from "./files.ts";

/** Where tenants are unless another host is to reach them. */
export const loopback = "127.0.0.1";

const lookupMs = 10_000;

/** What tenants are told to listen on, so that they are reached at `tenantHost`; the agent itself calls them on loopback. */
export function listenAddress(tenantHost: string): string {
  return tenantHost === loopback ? loopback : "0.0.0.0";
}

/**
 * The address of a name: gateways must not wait for a name server before each connection, nor remember an old answer.
 * @throws AgentStartError when the name has none within 10 s
 */
export async function addressOf(tenantHost: string): Promise<string> {
  try {
    const found = await withDeadline(lookup(tenantHost, { family: 4 }), lookupMs, `looking up ${tenantHost}`);
    return found.address;
  } catch (error) {
    throw new AgentStartError(
      `tenantHost: ${tenantHost} has no IPv4 address (${messageOf(error)}): give one that gateways can reach`,
    );
  }
}
