/** What happens because time has passed. */
import { fromDuration } from "@warren/common/time";
import { ExitReason } from "@warren/proto/common";
import type { Context } from "./context.ts";
import { askToStop, commandStop } from "./life.ts";
import { watchNodes } from "./nodes.ts";
import { mayLeave } from "./queue.ts";
import { beginQuiesce, cancelQuiesce } from "./quiesce.ts";
import type { Refusal } from "./refusal.ts";
import { removeWaiters } from "./waiters.ts";

export function tick(ctx: Context): void {
  expireCalls(ctx);
  forgetGateways(ctx);
  const { state, at, config } = ctx;
  if (at.mono - state.lastTick > config.nodeLateMs) state.awakeSince = at.mono;
  state.lastTick = at.mono;
  watchNodes(ctx);
  for (const instance of ctx.state.instances.values()) {
    const { phase } = instance;
    switch (phase.kind) {
      case "starting":
        if (ctx.at.mono >= phase.until) commandStop(ctx, instance, ExitReason.READINESS_TIMEOUT);
        break;
      case "ready":
        if (phase.quiescing && ctx.at.mono >= phase.quiescing.until) cancelQuiesce(ctx, instance);
        else if (mayLeave(ctx, instance, idleAfter(ctx, instance.ref.tenant))) {
          beginQuiesce(ctx, instance, ExitReason.IDLE_KILLED);
        }
        break;
      case "draining":
        if (ctx.at.mono >= phase.until) commandStop(ctx, instance, phase.reason);
        break;
      case "stopping":
        askToStop(ctx, instance, phase);
        break;
    }
  }
  if (ctx.state.queue.size || ctx.state.live > ctx.config.maxConcurrent) ctx.pumpWanted = true;
}

function idleAfter(ctx: Context, tenant: string): number {
  const idle = ctx.state.tenants.get(tenant)?.spec.idle;
  if (idle?.keepWarm) return Number.POSITIVE_INFINITY;
  return fromDuration(idle?.stopAfter, ctx.config.idleStopAfterMs);
}

function expireCalls(ctx: Context): void {
  const { state, at } = ctx;
  for (const key of [...state.waiters.keys()]) {
    for (const { call } of removeWaiters(state, key, (waiter) => waiter.deadline <= at.mono)) {
      ctx.emit({ type: "refuse", call, refusal: whyNotYet(ctx, key) });
    }
    if (!state.waiters.has(key)) state.queue.delete(key);
  }
  for (const [key, pending] of state.operations) {
    const kept = pending.filter(({ deadline, kind }) => deadline > at.mono || kind === "delete");
    if (pending.every(({ deadline, late }) => deadline > at.mono || late)) continue;
    for (const operation of pending) {
      if (operation.deadline > at.mono || operation.late) continue;
      const { call, kind } = operation;
      const what =
        kind === "restart"
          ? "its instance is not gone yet; that goes on, and the next request starts it again"
          : `${kind} is not done yet; it goes on`;
      ctx.emit({ type: "refuse", call, refusal: { kind: "deadline", tenant: key, what } });
      operation.late = true;
    }
    if (kept.length) state.operations.set(key, kept);
    else state.operations.delete(key);
  }
}

/** What a call that has waited in vain is told. */
function whyNotYet(ctx: Context, key: string): Refusal {
  const { state, config } = ctx;
  if (!state.queue.has(key)) {
    return {
      kind: "deadline",
      tenant: key,
      what: "its start (or the end of the instance before) is not done yet; it goes on",
    };
  }
  const tenant = state.tenants.get(key);
  if (state.live >= config.maxConcurrent) {
    return { kind: "cap", maxConcurrent: config.maxConcurrent, live: state.live, waiting: state.waiting };
  }
  return {
    kind: "no-node",
    tenant: key,
    refused: tenant?.nowhere ?? {},
    transient: true,
  };
}

function forgetGateways(ctx: Context): void {
  const { state, at, config } = ctx;
  for (const [id, gateway] of state.gateways) {
    if (gateway.watches <= 0 && at.mono - gateway.goneAt >= config.gatewayGoneMs) {
      state.gateways.delete(id);
      for (const instance of state.instances.values()) instance.tellers.delete(id);
    }
  }
}
