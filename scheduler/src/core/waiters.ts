/** Calls of Ensure that wait. Each gets exactly one answer, by its deadline (rule 4). */
import type { Context } from "./context.ts";
import { type Instance, type State, standingOf, type Waiter } from "./model.ts";
import type { Refusal } from "./refusal.ts";

export function hasWaiters(state: State, tenant: string): boolean {
  return state.waiters.has(tenant);
}

/** Adds a waiter, or answers why there is no room for it. */
export function addWaiter(ctx: Context, waiter: Waiter): Refusal | undefined {
  const { state, config } = ctx;
  const waiters = state.waiters.get(waiter.tenant) ?? [];
  if (state.waiting >= config.maxWaiting) {
    return { kind: "too-many", what: "calls waiting in the cluster", limit: config.maxWaiting };
  }
  if (waiters.length >= config.maxWaitingPerTenant) {
    return {
      kind: "too-many",
      what: `calls waiting for tenant ${waiter.tenant}`,
      limit: config.maxWaitingPerTenant,
    };
  }
  waiters.push(waiter);
  state.waiters.set(waiter.tenant, waiters);
  state.waiting++;
  return undefined;
}

function take(state: State, tenant: string): readonly Waiter[] {
  const waiters = state.waiters.get(tenant) ?? [];
  state.waiters.delete(tenant);
  state.waiting -= waiters.length;
  return waiters;
}

export function answerWaiters(ctx: Context, instance: Instance): void {
  if (instance.lost) return;
  for (const { call, cold } of take(ctx.state, instance.ref.tenant)) {
    ctx.emit({ type: "answer", call, answer: { kind: "ensured", instance: instance.ref.id, cold } });
  }
}

export function refuseWaiters(ctx: Context, tenant: string, refusal: Refusal): void {
  for (const { call } of take(ctx.state, tenant)) ctx.emit({ type: "refuse", call, refusal });
}

/** That no further instance could be started: whoever waits for one that is there, or on its way, goes on waiting. */
export function refuseUnserved(ctx: Context, tenant: string, refusal: Refusal, but?: Instance): void {
  if (standingOf(ctx.state, tenant).some((one) => one !== but)) return;
  refuseWaiters(ctx, tenant, refusal);
}

/** Takes out those that match, for the caller to answer. */
export function removeWaiters(
  state: State,
  tenant: string,
  matches: (waiter: Waiter) => boolean,
): readonly Waiter[] {
  const waiters = state.waiters.get(tenant);
  if (!waiters) return [];
  const removed = waiters.filter(matches);
  if (removed.length === 0) return removed;
  const kept = waiters.filter((waiter) => !matches(waiter));
  if (kept.length) state.waiters.set(tenant, kept);
  else state.waiters.delete(tenant);
  state.waiting -= removed.length;
  return removed;
}
