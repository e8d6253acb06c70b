/** The agent: mechanism on one host. See README.md. */
export { type Agent, startAgent } from "./agent.ts";
export { AgentStartError } from "./errors.ts";
export type { LogBounds } from "./logs.ts";
export type { AgentOptions } from "./options.ts";
export type { PortRange } from "./ports.ts";
export type { ReleaseBounds } from "./releases.ts";
