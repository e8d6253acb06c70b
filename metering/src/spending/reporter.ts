/**
 * Tells the scheduler every few seconds which limits are reached and which budget alerts the journal is to have, and hears
 * which limits there are. Whatever fails, it goes on after a pause; what was not acknowledged is told again.
 */
import { create } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import type { Logger } from "@warren/common/log";
import { backoff, type Clock, pause, toTimestamp, withDeadline } from "@warren/common/time";
import { BudgetAlertSchema } from "@warren/proto/common";
import { ReachedLimitSchema, type SchedulerService } from "@warren/proto/scheduler";
import type { SpendingMetrics } from "./metrics.ts";
import type { Alert, Watch } from "./watch.ts";

export interface ReporterOptions {
  readonly watch: Watch;
  readonly scheduler: Pick<Client<typeof SchedulerService>, "reportSpending">;
  readonly metrics: SpendingMetrics;
  readonly clock: Clock;
  readonly log: Logger;
  readonly currency: () => string;
  /** Between two reports, in ms; default 2 s. */
  readonly everyMs?: number;
  /** Uniform in [0, 1); default Math.random. */
  readonly random?: () => number;
}

/** Of one report: fits a message, with the longest keys. */
const mostReached = 20_000;
const mostAlerts = 1_000;
/** How long limits, and budgets, are looked at for one report, in ms. */
const lookMs = 500;
/** Until the next report when there are other limits than before, in ms. */
const changedMs = 100;
const callMs = 10_000;
const stopMs = 5_000;
/** What the contract's numbers hold: one tenant that is beyond it must not keep all others' limits from being told. */
const mostI64 = 2n ** 63n - 1n;
const mostU64 = 2n ** 64n - 1n;
const retry = { baseMs: 1_000, maxMs: 30_000 } as const;

export class Reporter implements AsyncDisposable {
  readonly #options: ReporterOptions;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  #seen = { epoch: 0n, version: 0n };
  #failures = 0;
  #overfull = false;

  private constructor(options: ReporterOptions) {
    this.#options = options;
    this.#running = this.#run();
  }

  static start(options: ReporterOptions): Reporter {
    return new Reporter(options);
  }

  /** @throws DeadlineError when the report in hand is not done within 5 s */
  stop(): Promise<void> {
    this.#stop.abort();
    return withDeadline(this.#running, stopMs, "finishing the report in hand");
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    const { log, metrics, everyMs = 2_000, random = Math.random } = this.#options;
    while (!signal.aborted) {
      try {
        const changed = await this.#report(signal);
        if (this.#failures > 0) log.info("limits and budgets are reported again");
        this.#failures = 0;
        // New limits are looked at and reported soon.
        await pause((changed ? Math.min(changedMs, everyMs) : everyMs) * (0.9 + 0.2 * random()), signal);
      } catch (error) {
        if (signal.aborted) return;
        metrics.failed();
        const ms = backoff({ ...retry, attempt: this.#failures++, random });
        if (this.#failures === 1)
          log.warn({ err: error }, "limits and budgets are not reported now; trying on");
        await pause(ms, signal);
      }
    }
  }

  /** @returns whether there are other limits than before */
  async #report(signal: AbortSignal): Promise<boolean> {
    const { watch, scheduler, metrics, clock, log } = this.#options;
    await watch.look(lookMs);
    const reached = this.#reached();
    const alerts = watch.due(mostAlerts);
    const answer = await scheduler.reportSpending(
      {
        reached,
        alerts: alerts.map((alert) => this.#alert(alert)),
        seenEpoch: this.#seen.epoch,
        seenLimitsVersion: this.#seen.version,
      },
      { signal, timeoutMs: callMs },
    );
    await watch.mark(alerts);
    metrics.reported({ alerts: alerts.length, reached: reached.length, now: clock.now() });
    if (answer.unchanged) return false;
    const unknown = watch.setLimits(answer.limits);
    if (unknown > 0)
      log.warn({ limits: unknown }, "these limits are a newer version's: they are not watched");
    this.#seen = { epoch: answer.epoch, version: answer.limitsVersion };
    return true;
  }

  #reached() {
    const list = [];
    for (const { tenant, limit, used, until } of this.#options.watch.reached()) {
      if (list.length === mostReached) {
        if (!this.#overfull)
          this.#options.log.error(
            { most: mostReached },
            "more limits are reached than fit a report: the others are not held",
          );
        this.#overfull = true;
        return list;
      }
      list.push(
        create(ReachedLimitSchema, { tenant, limit, used: atMost(used, mostU64), until: toTimestamp(until) }),
      );
    }
    this.#overfull = false;
    return list;
  }

  #alert({ tenant, plan, start, end, percent, amount, budget }: Alert) {
    return create(BudgetAlertSchema, {
      tenant,
      plan,
      periodStart: toTimestamp(start),
      periodEnd: toTimestamp(end),
      percent,
      amountMicros: atMost(amount, mostI64),
      budgetMicros: budget,
      currency: this.#options.currency(),
    });
  }
}

const atMost = (value: bigint, most: bigint): bigint => (value < most ? value : most);
