/** A process whose certificate is renewed for as long as it runs. */
import { keepRenewed, type RenewOptions } from "@warren/common/tls/renew";
import type { Running } from "./run.ts";

export function renewing(running: Running, options: Omit<RenewOptions, "signal">): Running {
  const over = new AbortController();
  const renewal = keepRenewed({ ...options, signal: over.signal });
  const { facts, handOver } = running;
  const ending = (stop: () => Promise<void>) => async () => {
    over.abort();
    await Promise.all([stop(), renewal]);
  };
  return { facts, stop: ending(running.stop), ...(handOver && { handOver: ending(handOver) }) };
}
