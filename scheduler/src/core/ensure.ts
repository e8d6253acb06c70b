/** Ensure: a map look-up when the tenant is warm; otherwise the call waits for a start, one for all (rule 4). */
import type { Context } from "./context.ts";
import { backingOff } from "./failures.ts";
import { standing, type Tenant } from "./model.ts";
import { cancelQuiesce } from "./quiesce.ts";
import type { Refusal } from "./refusal.ts";
import { addWaiter, removeWaiters } from "./waiters.ts";

export function ensure(ctx: Context, call: string, key: string, deadline: number): void {
  const tenant = ctx.state.tenants.get(key);
  const refusal = cannotServe(tenant, key);
  if (refusal || !tenant) {
    ctx.emit({ type: "refuse", call, refusal: refusal ?? { kind: "no-tenant", tenant: key } });
    return;
  }
  const instance = standing(ctx.state, key);
  if (instance?.phase.kind === "ready") {
    if (instance.phase.quiescing) cancelQuiesce(ctx, instance);
    instance.lastUsed = ctx.at.mono;
    ctx.emit({ type: "answer", call, answer: { kind: "ensured", instance: instance.ref.id, cold: false } });
    return;
  }
  const held = instance ? undefined : backingOff(ctx, tenant);
  const full = held ?? addWaiter(ctx, { call, tenant: key, deadline, cold: true });
  if (full) {
    ctx.emit({ type: "refuse", call, refusal: full });
    return;
  }
  if (!instance) {
    ctx.state.queue.add(key);
    ctx.pumpWanted = true;
  }
}

function cannotServe(tenant: Tenant | undefined, key: string): Refusal | undefined {
  if (!tenant || tenant.deleting) return { kind: "no-tenant", tenant: key };
  if (tenant.spec.source.case === undefined) return { kind: "no-source", tenant: key };
  return undefined;
}

/** The caller went away: it is answered no more. A start under way goes on, it belongs to the instance. */
export function cancel(ctx: Context, call: string, tenant: string): void {
  removeWaiters(ctx.state, tenant, (waiter) => waiter.call === call);
}
