/** HTTP in, tenant out: holds a request while its tenant wakes. */
export { type Gateway, type GatewayStats, startGateway } from "./gateway.ts";
export type { GatewayOptions } from "./options.ts";
