/** The agent's clock: what has lasted longer than the agent is timed by the host's uptime, which nobody sets. */
import { uptime } from "node:os";
import type { Clock } from "@warren/common/time";
import { readUptimeMs } from "./host/procfs.ts";

function uptimeMs(): number {
  try {
    return readUptimeMs(); // to 10 ms, once per agent
  } catch {
    return uptime() * 1000; // a host without /proc
  }
}

const bootedAt = uptimeMs() - performance.now();

/** Its monotonic time is that since the host's boot, and so goes on under the next agent. */
export const agentClock: Clock = {
  now: () => Date.now(),
  monotonic: () => bootedAt + performance.now(),
};
