/** Which limits on a tenant's use are reached. Pure. */
import { type UsageLimit, UsagePeriod } from "@warren/proto/common";
import { kindOfMeter, type MeterKind, type Use } from "../billing/catalog.ts";
import type { Period, PeriodName } from "../billing/period.ts";

/** A limit that can be watched. */
export interface WatchedLimit {
  /** As the scheduler named it. */
  readonly limit: UsageLimit;
  readonly kind: MeterKind;
  readonly period: PeriodName;
}

export interface Reached {
  readonly limit: UsageLimit;
  /** In whole units of the meter. */
  readonly used: bigint;
  /** End of its period, ms since 1970. */
  readonly until: number;
}

const periods: Readonly<Partial<Record<UsagePeriod, PeriodName>>> = {
  [UsagePeriod.HOUR]: "hour",
  [UsagePeriod.DAY]: "day",
  [UsagePeriod.MONTH]: "month",
};

/** Nothing for a meter or a period that only a newer version knows. */
export function watched(limit: UsageLimit): WatchedLimit | undefined {
  const kind = kindOfMeter(limit.meter);
  const period = periods[limit.period];
  return kind && period && { limit, kind, period };
}

/** Nothing while it is not reached. */
export function reachedOf({ limit, kind }: WatchedLimit, use: Use, { end }: Period): Reached | undefined {
  const used = kind.of(use) / kind.perUnit;
  return used >= limit.max ? { limit, used, until: end } : undefined;
}
