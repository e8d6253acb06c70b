/** Ensure: a map look-up when the tenant is warm; otherwise the call waits for a start, one for all (rule 4). */
import type { Context } from "./context.ts";
import { wish } from "./desire.ts";
import { backingOff } from "./failures.ts";
import { limitRefusal } from "./limits.ts";
import { type Moment, readyOf, serving, standingOf, type Tenant } from "./model.ts";
import { used } from "./phases.ts";
import { unqueue } from "./queue.ts";
import { cancelAttempt } from "./quiesce.ts";
import type { Refusal } from "./refusal.ts";
import { commandThaw, isAsleep } from "./sleep.ts";
import { addWaiter, removeWaiters } from "./waiters.ts";

export function ensure(ctx: Context, call: string, key: string, deadline: number): void {
  const tenant = ctx.state.tenants.get(key);
  const refusal = cannotServe(tenant, key, ctx.at);
  if (refusal || !tenant) {
    ctx.emit({ type: "refuse", call, refusal: refusal ?? { kind: "no-tenant", tenant: key } });
    return;
  }
  tenant.paused = false;
  const instance = readyOf(ctx.state, key);
  const cold = instance === undefined;
  if (instance?.phase.kind === "ready") {
    cancelAttempt(ctx, instance);
    used(ctx, instance, ctx.at.mono);
    const { command } = instance.phase;
    if (!isAsleep(instance) && !command) {
      ctx.emit({ type: "answer", call, answer: { kind: "ensured", instance: instance.ref.id, cold } });
      return;
    }
  }
  const held = standingOf(ctx.state, key).length > 0 ? undefined : backingOff(ctx, tenant);
  const full = held ?? addWaiter(ctx, { call, tenant: key, deadline, cold });
  if (full) {
    ctx.emit({ type: "refuse", call, refusal: full });
    return;
  }
  // Asleep, or on its way: it is told to wake, and a freeze that has not been answered is undone by that.
  if (instance) commandThaw(ctx, instance);
  // One that no node could take a moment ago is tried again when there is room, not for each of its callers.
  else if (!ctx.state.parked.has(key)) wish(ctx, tenant);
}

function cannotServe(tenant: Tenant | undefined, key: string, at: Moment): Refusal | undefined {
  if (!tenant || tenant.deleting) return { kind: "no-tenant", tenant: key };
  if (serving(tenant).spec.source.case === undefined) return { kind: "no-source", tenant: key };
  return limitRefusal(tenant, at);
}

/** The caller went away: it is answered no more. A start under way goes on, it belongs to the instance. */
export function cancel(ctx: Context, call: string, tenant: string): void {
  removeWaiters(ctx.state, tenant, (waiter) => waiter.call === call);
  unqueue(ctx, tenant);
}
