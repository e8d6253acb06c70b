/**
 * How many instances a tenant needs by its load: requests in flight over what one is to have. Up at once; down by one when
 * the load has needed fewer for a while, and only one that has come to rest.
 */
import { ExitReason } from "@warren/proto/common";
import type { Context } from "./context.ts";
import { bounds, wish } from "./desire.ts";
import { type Instance, inFlight, serving, standingOf, type Tenant } from "./model.ts";
import { beginRetire } from "./stop.ts";
import { armTenant } from "./timing.ts";

export function needed(ctx: Context, tenant: Tenant, standing: readonly Instance[]): number {
  const { spec } = serving(tenant);
  let load = ctx.state.waiters.get(tenant.key)?.length ?? 0;
  for (const instance of standing) load += inFlight(ctx.state, instance, ctx.at, ctx.config);
  const target = spec.instances?.targetConcurrency || ctx.config.targetConcurrency;
  const { min, max } = bounds(spec);
  return Math.min(max, Math.max(min, Math.ceil(load / target)));
}

/** The load may have changed. */
export function rescale(ctx: Context, tenant: Tenant): void {
  // One that may have a single instance can have more: its maximum was lowered.
  const tracked = ctx.state.byTenant.get(tenant.key)?.size ?? 0;
  if (tracked <= 1 && bounds(serving(tenant).spec).max <= 1) return;
  const standing = standingOf(ctx.state, tenant.key);
  if (standing.length === 0) return;
  const need = needed(ctx, tenant, standing);
  if (need > tenant.scale) {
    tenant.scale = need;
    wish(ctx, tenant);
  }
  if (tenant.load) tenant.load.peak = Math.max(tenant.load.peak, need);
  else if (tenant.scale > 1) {
    tenant.load = { peak: need, since: ctx.at.mono };
    armTenant(ctx, tenant, ctx.at.mono + ctx.config.scaleDownMs);
  }
}

/** The time is over for which the load was watched. */
export function scaleDown(ctx: Context, tenant: Tenant): void {
  const { load } = tenant;
  if (!load) return;
  if (ctx.at.mono - load.since < ctx.config.scaleDownMs) {
    armTenant(ctx, tenant, load.since + ctx.config.scaleDownMs);
    return;
  }
  tenant.load = undefined;
  const standing = standingOf(ctx.state, tenant.key);
  const { min, max } = bounds(serving(tenant).spec);
  const least = Math.max(1, min, Math.min(max, load.peak));
  if (standing.length > least && tenant.scale > least) {
    const ready = standing.filter(({ phase }) => phase.kind === "ready" && !phase.command);
    // The one with the least to finish; of equals the last one that came.
    const flight = (instance: Instance) => inFlight(ctx.state, instance, ctx.at, ctx.config);
    ready.sort((a, b) => flight(a) - flight(b) || b.ref.slot - a.ref.slot);
    if (ready[0]) {
      tenant.scale--;
      beginRetire(ctx, ready[0], ExitReason.IDLE_KILLED);
    }
  }
  rescale(ctx, tenant);
}
