/**
 * Nothing of a tenant runs that has reached a limit on its use. One that is reached stays so until its period is over or
 * the spec allows more: use never shrinks, and a ledger that was lost, lags behind or is away must not open the door again,
 * under the next leader neither. So what is reached is persisted. The end of a period is not: all that were reached in it
 * end at once, and a record of one that is over says nothing.
 */
import { create } from "@bufbuild/protobuf";
import { toTimestamp } from "@warren/common/time";
import { ExitReason, LimitChangedSchema } from "@warren/proto/common";
import { type Context, count } from "./context.ts";
import { wish } from "./desire.ts";
import { limitRefusal, stillHolds } from "./limits.ts";
import { type HeldLimit, instancesOf, type ReachedLimit, type Tenant } from "./model.ts";
import { unqueue } from "./queue.ts";
import { abandonMove } from "./replace.ts";
import { settleOwed } from "./restart.ts";
import { cutShort } from "./rollout.ts";
import { beginStop, condemn } from "./stop.ts";
import { armTenant } from "./timing.ts";
import { refuseWaiters } from "./waiters.ts";

/** What the ledger has found. What still runs of such a tenant is drained and stopped; asked again, it changes nothing. */
export function limitsReached(ctx: Context, all: readonly ReachedLimit[]): void {
  for (const reached of all) {
    const tenant = ctx.state.tenants.get(reached.tenant);
    if (!tenant || tenant.deleting || reached.until <= ctx.at.wall || !stillHolds(tenant, reached)) continue;
    note(ctx, tenant, reached);
    close(ctx, tenant);
  }
}

const keyOf = ({ limit }: ReachedLimit): string => `${limit.meter}/${limit.period}`;

function hold(ctx: Context, tenant: Tenant, reached: ReachedLimit): Map<string, HeldLimit> {
  const overAt = ctx.at.mono + (reached.until - ctx.at.wall);
  tenant.limits ??= new Map();
  tenant.limits.set(keyOf(reached), { ...reached, overAt });
  armTenant(ctx, tenant, overAt);
  return tenant.limits;
}

function note(ctx: Context, tenant: Tenant, reached: ReachedLimit): void {
  const before = tenant.limits?.get(keyOf(reached));
  const held = hold(ctx, tenant, reached);
  if (before?.until === reached.until && stillHolds(tenant, before)) return;
  count(ctx, "limits_reached");
  tell(ctx, tenant, reached, true);
  tenant.limitsKept = true;
  ctx.emit({
    type: "persist",
    write: { kind: "limits", tenant: tenant.key, reached: [...held.values()] },
  });
}

/** What the leader before this one held. The world has heard of it. */
export function resumeLimits(ctx: Context, all: readonly ReachedLimit[]): void {
  for (const reached of all) {
    const tenant = ctx.state.tenants.get(reached.tenant);
    if (!tenant) {
      forgetLimits(ctx, reached.tenant); // it died between the two writes
      continue;
    }
    tenant.limitsKept = true;
    if (reached.until > ctx.at.wall && stillHolds(tenant, reached)) hold(ctx, tenant, reached);
  }
}

/** Of a tenant that is no more. */
export function forgetLimits(ctx: Context, tenant: string): void {
  ctx.emit({ type: "persist", write: { kind: "limits", tenant, reached: [] } });
}

/** Nothing of it is to run. */
function close(ctx: Context, tenant: Tenant): void {
  const refusal = limitRefusal(tenant, ctx.at);
  if (!refusal) return;
  refuseWaiters(ctx, tenant.key, refusal);
  const running = instancesOf(ctx.state, tenant.key);
  if (running.length === 0 && !tenant.owed) return;
  tenant.scale = 0;
  settleOwed(ctx, tenant);
  cutShort(ctx, tenant, "a limit on its use was reached");
  for (const move of [...(tenant.moves ?? [])]) abandonMove(ctx, move);
  unqueue(ctx, tenant.key);
  for (const instance of running) {
    if (instance.lost) condemn(ctx, instance, ExitReason.LIMIT);
    else beginStop(ctx, instance, ExitReason.LIMIT);
  }
}

/** Forgets those that stand in its way no more: their period is over, or it has a spec that allows more. */
export function reopen(ctx: Context, tenant: Tenant): void {
  if (!tenant.limits) return;
  for (const [key, held] of tenant.limits) {
    if (held.overAt > ctx.at.mono && stillHolds(tenant, held)) {
      armTenant(ctx, tenant, held.overAt);
      continue;
    }
    tenant.limits.delete(key);
    tell(ctx, tenant, held, false);
  }
  if (tenant.limits.size > 0) return;
  tenant.limits = undefined;
  wish(ctx, tenant);
}

function tell(ctx: Context, { key }: Tenant, { limit, used, until }: ReachedLimit, reached: boolean): void {
  const value = create(LimitChangedSchema, { tenant: key, limit, reached, used, until: toTimestamp(until) });
  ctx.emit({ type: "event", tenant: key, payload: { case: "limit", value } });
}
