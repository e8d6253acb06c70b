/** A process whose certificate is renewed for as long as it runs. */
import { keepRenewed, type RenewOptions } from "@warren/common/tls/renew";
import type { Running } from "./run.ts";

export function renewing(running: Running, options: Omit<RenewOptions, "signal">): Running {
  const over = new AbortController();
  const renewal = keepRenewed({ ...options, signal: over.signal });
  return {
    facts: running.facts,
    async stop() {
      over.abort();
      await Promise.all([running.stop(), renewal]);
    },
  };
}
