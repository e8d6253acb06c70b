/** Structured logs: one JSON object a line on stderr, so that stdout stays for what the user asked for. */
import pino, { type Logger } from "pino";

export type { Logger } from "pino";

export interface LogOptions {
  /** Which process speaks: "agent", "scheduler", … */
  readonly process: string;
  /** Node's name, for agents and gateways. */
  readonly node?: string;
  /** "trace" … "fatal" or "silent"; default WARREN_LOG, else "info". */
  readonly level?: string;
}

/**
 * Tokens, keys and tenants' environments never belong in a log; these paths are blanked should they get there.
 */
const redact = ["token", "*.token", "credentials", "*.credentials", "env", "*.env", "headers.authorization"];

/** A logger; written synchronously, so that the last words before a crash are not lost. */
export function createLogger(options: LogOptions): Logger {
  return pino(
    {
      level: options.level ?? process.env.WARREN_LOG ?? "info",
      base: { process: options.process, ...(options.node ? { node: options.node } : {}), pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact,
    },
    pino.destination({ fd: 2, sync: true }),
  );
}
