/** Limits and budgets of a metering process: watched against its ledger, and reported to its schedulers. */
import type { Logger } from "@warren/common/log";
import type { Registry } from "@warren/common/metrics";
import type { Credentials } from "@warren/common/rpc/credentials";
import { connectLeader } from "@warren/common/rpc/leader";
import type { Clock } from "@warren/common/time";
import { SchedulerService } from "@warren/proto/scheduler";
import type { LivePlans } from "../billing/live-plans.ts";
import type { Ledger } from "../ledger/ledger.ts";
import { spendingMetrics } from "./metrics.ts";
import { Reporter } from "./reporter.ts";
import { Watch } from "./watch.ts";

export interface SpendingOptions {
  /** At least one. */
  readonly schedulerUrls: readonly string[];
  /** Between two reports, in ms; default 2 s. */
  readonly everyMs?: number;
  readonly credentials: Credentials;
  readonly ledger: Ledger;
  readonly plans: LivePlans | undefined;
  readonly registry: Registry;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface Spending extends AsyncDisposable {
  /** Whoever counts is to count through this. */
  readonly ledger: Pick<Ledger, "count" | "position" | "fold">;
}

/** @throws TypeError when a URL is none, or not https */
export function startSpending(options: SpendingOptions): Spending {
  const { schedulerUrls: urls, everyMs, credentials, ledger, plans, registry, clock, log } = options;
  const watch = new Watch({ ledger, plans: () => plans?.current, clock });
  plans?.onChange(() => watch.plansChanged());
  const leader = connectLeader({ urls, credentials });
  const reporter = Reporter.start({
    watch,
    scheduler: leader.client(SchedulerService),
    metrics: spendingMetrics(registry, watch),
    everyMs,
    currency: () => plans?.current.currency ?? "",
    clock,
    log,
  });
  return {
    ledger: watch.counting(),
    async [Symbol.asyncDispose]() {
      try {
        await reporter.stop();
      } finally {
        leader.close();
      }
    },
  };
}
