/** `warren_metering_*` of the plans. */
import { Gauge, type Registry } from "@warren/common/metrics";
import type { LivePlans } from "./live-plans.ts";

export function plansMetrics(registry: Registry, plans: LivePlans): void {
  new Gauge({
    name: "warren_metering_plans_broken",
    help: "1 while the plans file cannot be used, and an earlier one counts.",
    registers: [registry],
    collect() {
      this.set(plans.broken ? 1 : 0);
    },
  });
}
