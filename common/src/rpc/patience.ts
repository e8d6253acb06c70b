/**
 * How long each waits for the start of an instance, the innermost first, in ms. Each outer one is longer than those inside
 * it by more than they may be late, so that why a start failed reaches whoever asked for it, instead of a bare timeout.
 */
export const patience = {
  /** An agent, from the spawn until the instance is ready, where the spec names no time. */
  readiness: 30_000,
  /** A gateway holds a request: below the 60 s after which most proxies in front of it give up. */
  hold: 45_000,
  /** A caller of Ensure: longer than the scheduler waits for the agent, which may have to fetch the release first. */
  ensure: 75_000,
  /** By how much a caller waits longer than a readiness timeout that the spec names. */
  ensureBeyondReadiness: 45_000,
} as const;
