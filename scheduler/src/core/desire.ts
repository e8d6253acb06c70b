/** How many instances a tenant is to have now, and in which slots. */
import type { TenantSpec } from "@warren/proto/common";
import type { Context } from "./context.ts";
import { backingOff } from "./failures.ts";
import { limitInTheWay } from "./limits.ts";
import { instancesOf, serving, standingOf, standingSlots, type Tenant } from "./model.ts";
import { settleOwed } from "./restart.ts";
import { armTenant } from "./timing.ts";
import { hasWaiters } from "./waiters.ts";

export function bounds({ instances }: TenantSpec): { min: number; max: number } {
  const min = instances?.min ?? 0;
  return { min, max: Math.max(1, min, instances?.max ?? 0) };
}

/** By load, policy, the spec's minimum and whoever waits; within its maximum. */
export function desired(ctx: Context, tenant: Tenant): number {
  const { spec } = serving(tenant);
  if (tenant.deleting || spec.source.case === undefined || limitInTheWay(tenant, ctx.at)) return 0;
  // While it is being stopped nothing is started, in no slot: the stop would have no end.
  if (ctx.state.operations.has(tenant.key)) return 0;
  const { min, max } = bounds(spec);
  const floor = tenant.paused ? 0 : min;
  return Math.min(max, Math.max(floor, tenant.scale, hasWaiters(ctx.state, tenant.key) ? 1 : 0));
}

/**
 * The slot of the next instance that is wanted: the lowest that nothing holds, not even one that is stopping (rule 2).
 * Nothing when there are enough, or all slots are held.
 */
export function nextSlot(ctx: Context, tenant: Tenant): number | undefined {
  const want = desired(ctx, tenant);
  if (want === 0) return undefined;
  // A successor that has not yet taken over holds the slot of its predecessor.
  const held = new Set<number>();
  for (const { ref, lost } of instancesOf(ctx.state, tenant.key)) if (!lost) held.add(ref.slot);
  // One whose instance had to go first is its successor's.
  let promised = 0;
  for (const { old, successor } of tenant.moves ?? []) {
    if (successor !== undefined || held.has(old.slot)) continue;
    held.add(old.slot);
    promised++;
  }
  if (standingSlots(ctx.state, tenant.key) + promised >= want) return undefined;
  const { max } = bounds(serving(tenant).spec);
  for (let slot = 0; slot < max; slot++) if (!held.has(slot)) return slot;
  return undefined;
}

/** Puts the tenant into the queue if it is to have more than it has; one in back-off when that is over. */
export function wish(ctx: Context, tenant: Tenant): void {
  if (nextSlot(ctx, tenant) === undefined) {
    if (tenant.owed && standingOf(ctx.state, tenant.key).length >= desired(ctx, tenant))
      settleOwed(ctx, tenant);
    return;
  }
  if (backingOff(ctx, tenant) && !hasWaiters(ctx.state, tenant.key)) {
    armTenant(ctx, tenant, tenant.backoffUntil);
    return;
  }
  enqueue(ctx, tenant);
}

/** It wants a place, for a new instance or for a successor. */
export function enqueue(ctx: Context, tenant: Tenant): void {
  ctx.state.queue.add(tenant.key, serving(tenant).spec.priority);
  ctx.pumpWanted = true;
}
