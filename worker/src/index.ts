/**
 * What a tenant may import, and need not: it runs the same without an agent, where nobody is told and nothing fails.
 *
 *     import { heartbeat, onShutdown, ready } from "@warren/worker";
 *
 *     const server = Bun.serve({ port: process.env.PORT, fetch });
 *     onShutdown(() => server.stop());
 *     heartbeat();
 *     await ready();
 */
export { onShutdown, type ShutdownHandler, type ShutdownOptions, type ShutdownSignal } from "./shutdown.ts";
export { heartbeat, type ReadyOptions, ready } from "./tell.ts";
