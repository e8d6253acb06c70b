/** `warren_metering_*` of limits and budgets. */
import { Counter, Gauge, type Registry } from "@warren/common/metrics";
import type { Watch } from "./watch.ts";

export interface SpendingMetrics {
  /** The scheduler has acknowledged a report. */
  reported(report: { readonly alerts: number; readonly reached: number; readonly now: number }): void;
  failed(): void;
}

export function spendingMetrics(registry: Registry, watch: Watch): SpendingMetrics {
  const registers = [registry];
  new Gauge({
    name: "warren_metering_limited_tenants",
    help: "Tenants whose specs limit their use.",
    registers,
    collect() {
      this.set(watch.limited);
    },
  });
  const reached = new Gauge({
    name: "warren_metering_limits_reached",
    help: "Limits on tenants' use that are reached now.",
    registers,
  });
  const alerts = new Counter({
    name: "warren_metering_budget_alerts_total",
    help: "Budget alerts that the journal was given by this process.",
    registers,
  });
  const failures = new Counter({
    name: "warren_metering_report_failures_total",
    help: "Reports of limits and budgets that the scheduler did not acknowledge, and that were tried again.",
    registers,
  });
  const lastReport = new Gauge({
    name: "warren_metering_last_report_timestamp_seconds",
    help: "When the scheduler last acknowledged a report of limits and budgets; limits are not held after it.",
    registers,
  });
  return {
    failed: () => failures.inc(),
    reported(report) {
      reached.set(report.reached);
      alerts.inc(report.alerts);
      lastReport.set(report.now / 1_000);
    },
  };
}
