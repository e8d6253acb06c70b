/** Folds what is old, a little at a time, between the batches that are counted. */
import type { Logger } from "@warren/common/log";
import type { Clock } from "@warren/common/time";
import type { Ledger } from "./ledger/ledger.ts";
import type { MeteringMetrics } from "./metrics.ts";

/** Of folding in one go, in ms; what is left comes after the next batch. */
const mostMs = 20;

export interface FoldingOptions {
  readonly ledger: Pick<Ledger, "fold">;
  readonly metrics: MeteringMetrics;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Nothing waits for it: should it fail, counting goes on, and the next time tries again. */
export async function foldForAWhile({ ledger, metrics, clock, log }: FoldingOptions): Promise<void> {
  const end = clock.monotonic() + mostMs;
  try {
    for (let more = true; more && clock.monotonic() < end; ) {
      const folded = await ledger.fold();
      metrics.folded(folded);
      more = folded.more;
    }
  } catch (error) {
    metrics.failed();
    log.warn({ err: error }, "what is old was not folded; trying again after the next batch");
  }
}
