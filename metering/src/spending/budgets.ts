/** Which alerts a tenant's budget is due. Pure. */
import type { Use } from "../billing/catalog.ts";
import { billOf } from "../billing/invoice.ts";
import type { Plan } from "../billing/plan.ts";

export interface DueAlert {
  readonly percent: number;
  /** What the invoice comes to, in micros. */
  readonly amount: bigint;
  /** In micros. */
  readonly budget: bigint;
}

/** One for each of the plan's percents that the month's invoice has come to. */
export function dueAlerts(plan: Plan, use: Use): DueAlert[] {
  const { budget } = plan;
  if (!budget) return [];
  const amount = billOf(plan, use, true).total;
  return budget.alertPercents
    .filter((percent) => amount * 100n >= budget.micros * BigInt(percent))
    .map((percent) => ({ percent, amount, budget: budget.micros }));
}
