/** What happens because time has passed. */
import { ExitReason } from "@warren/proto/common";
import { beginBackups } from "./backups.ts";
import type { Context } from "./context.ts";
import { wish } from "./desire.ts";
import { expireDrainCalls, stepDrain } from "./drain.ts";
import { forgetGateways } from "./endpoints.ts";
import { reopen } from "./enforce.ts";
import { askToStop, commandStop } from "./life.ts";
import type { Instance, Tenant } from "./model.ts";
import { watchNodes } from "./nodes.ts";
import { expireOperations } from "./operations.ts";
import { periodsOf } from "./periods.ts";
import { isQueued, unqueue } from "./queue.ts";
import { cancelAttempt, settleQuiet } from "./quiesce.ts";
import { rebalance } from "./rebalance.ts";
import type { Refusal } from "./refusal.ts";
import { expireMoves } from "./replace.ts";
import { expireReloads, resumeRollout } from "./rollout.ts";
import { scaleDown } from "./scale.ts";
import { commandThaw, isAsleep, stepDown } from "./sleep.ts";
import { drainOver } from "./stop.ts";
import { armInstance } from "./timing.ts";
import { hasWaiters, removeWaiters } from "./waiters.ts";

/** So often what has no timer of its own is looked at, in ms. */
const sweepMs = 500;

export function tick(ctx: Context): void {
  const { state, at, config } = ctx;
  expireWaiters(ctx);
  expireOperations(ctx);
  if (at.mono - state.lastTick > periodsOf(config, state.nodes.size).late) state.awakeSince = at.mono;
  const swept = Math.floor(state.lastTick / sweepMs) !== Math.floor(at.mono / sweepMs);
  const rebalanced =
    Math.floor(state.lastTick / config.rebalanceMs) !== Math.floor(at.mono / config.rebalanceMs);
  state.lastTick = at.mono;
  for (let due = state.timers.pop(at.mono); due; due = state.timers.pop(at.mono)) {
    if (due.kind === "instance") {
      const instance = state.instances.get(due.key);
      if (!instance || instance.armedAt !== due.at) continue;
      instance.armedAt = Number.POSITIVE_INFINITY;
      lookAtInstance(ctx, instance);
    } else {
      const tenant = state.tenants.get(due.key);
      if (!tenant || tenant.armedAt !== due.at) continue;
      tenant.armedAt = Number.POSITIVE_INFINITY;
      lookAtTenant(ctx, tenant);
    }
  }
  if (swept) sweep(ctx);
  if (rebalanced) rebalance(ctx);
  if (state.queue.size || state.live > config.maxConcurrent) ctx.pumpWanted = true;
}

function sweep(ctx: Context): void {
  const { state } = ctx;
  forgetGateways(ctx);
  watchNodes(ctx);
  expireMoves(ctx);
  beginBackups(ctx);
  for (const node of state.roster) {
    if (!node.draining) continue;
    expireDrainCalls(ctx, node);
    stepDrain(ctx, node);
  }
  for (const move of state.moves.values()) {
    const tenant = state.tenants.get(move.old.tenant);
    if (tenant?.rollout) expireReloads(ctx, tenant);
  }
  if (state.parked.size) ctx.retryWanted = true; // a penalty may be over, a node less pressed
}

/** Whoever was looked at for an earlier reason, and is not due, is looked at again when it is. */
function lookAtInstance(ctx: Context, instance: Instance): void {
  const { phase } = instance;
  switch (phase.kind) {
    case "starting":
      if (ctx.at.mono >= phase.until) commandStop(ctx, instance, ExitReason.READINESS_TIMEOUT);
      else armInstance(ctx, instance, phase.until);
      return;
    case "ready":
      if (phase.attempt) {
        if (ctx.at.mono >= phase.attempt.until) cancelAttempt(ctx, instance);
        else armInstance(ctx, instance, phase.attempt.until);
      } else if (!phase.command) {
        // A thaw that failed is tried again as long as somebody waits.
        if (isAsleep(instance) && hasWaiters(ctx.state, instance.ref.tenant)) commandThaw(ctx, instance);
        else stepDown(ctx, instance);
      }
      return;
    case "draining":
      if (ctx.at.mono >= phase.until) drainOver(ctx, instance);
      else {
        armInstance(ctx, instance, phase.until);
        settleQuiet(ctx, instance); // gateways may have had the time to come back
      }
      return;
    case "stopping":
      askToStop(ctx, instance, phase);
      return;
  }
}

/** A back-off is over, a load was watched for long enough, or a rollout that found no place is to go on. */
function lookAtTenant(ctx: Context, tenant: Tenant): void {
  reopen(ctx, tenant);
  scaleDown(ctx, tenant);
  resumeRollout(ctx, tenant);
  wish(ctx, tenant);
}

function expireWaiters(ctx: Context): void {
  const { state, at } = ctx;
  for (const key of [...state.waiters.keys()]) {
    const late = removeWaiters(state, key, (waiter) => waiter.deadline <= at.mono);
    if (late.length === 0) continue;
    const refusal = whyNotYet(ctx, key);
    for (const { call } of late) ctx.emit({ type: "refuse", call, refusal });
    if (!state.waiters.has(key)) unqueue(ctx, key);
  }
}

/** What a call that has waited in vain is told. */
function whyNotYet(ctx: Context, key: string): Refusal {
  const { state, config } = ctx;
  if (!isQueued(ctx, key)) {
    return {
      kind: "deadline",
      tenant: key,
      what: "its start (or the end of the instance before) is not done yet; it goes on",
    };
  }
  if (state.live >= config.maxConcurrent) {
    return { kind: "cap", maxConcurrent: config.maxConcurrent, live: state.live, waiting: state.waiting };
  }
  return { kind: "no-node", tenant: key, refused: state.tenants.get(key)?.nowhere ?? {}, transient: true };
}
