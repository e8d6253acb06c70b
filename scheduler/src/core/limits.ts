/** Limits on a tenant's use, as the ledger finds them reached. What follows from one is in enforce.ts. */
import { type UsageLimit, UsageMeter, UsagePeriod } from "@warren/proto/common";
import type { HeldLimit, Moment, ReachedLimit, State, Tenant } from "./model.ts";
import type { Refusal } from "./refusal.ts";

/** Whether the spec, as it is now, is still against it. */
export function stillHolds({ newest: { spec } }: Tenant, { limit, used }: ReachedLimit): boolean {
  return spec.usageLimits.some(
    ({ meter, period, max }) => meter === limit.meter && period === limit.period && used >= max,
  );
}

/** The limit that stands in the tenant's way at this moment: of several, the one that does for longest. */
export function limitInTheWay(tenant: Tenant, { mono }: Moment): HeldLimit | undefined {
  let longest: HeldLimit | undefined;
  for (const held of tenant.limits?.values() ?? []) {
    if (held.overAt <= mono || !stillHolds(tenant, held)) continue;
    if (!longest || held.overAt > longest.overAt) longest = held;
  }
  return longest;
}

export function limitRefusal(tenant: Tenant, at: Moment): Refusal | undefined {
  const held = limitInTheWay(tenant, at);
  if (!held) return undefined;
  const { limit, used, until } = held;
  return { kind: "limit", tenant: tenant.key, limit, used, until };
}

/** "3605 of 3600 cpu-seconds a day are used; the next begins at …" */
export function limitText({ limit, used, until }: Omit<ReachedLimit, "tenant">): string {
  const meter = UsageMeter[limit.meter]?.toLowerCase().replaceAll("_", "-");
  const period = UsagePeriod[limit.period]?.toLowerCase();
  return `${used} of ${limit.max} ${meter} a ${period} are used; the next one begins at ${new Date(until).toISOString()}`;
}

/** The tenant's limits are those of this spec from now on; the ledger is to hear of it. */
export function watchLimits(state: State, key: string, limits: readonly UsageLimit[]): void {
  const before = state.limited.get(key);
  if (limits.length === 0 && !before) return;
  if (limits.length > 0) state.limited.set(key, limits);
  else state.limited.delete(key);
  state.limitsVersion++;
}
