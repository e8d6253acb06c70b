/**
 * Putting an idle instance away without cutting a request (rule 3). The endpoint is published as QUIESCING; every
 * gateway that has nothing in flight seals it (sends it nothing more without Ensure) and says so; only when all have,
 * does the freeze or the stop go on. A request in flight, an Ensure or the deadline gives the attempt up.
 */
import type { ExitReason } from "@warren/proto/common";
import { type Context, count } from "./context.ts";
import { publish } from "./endpoints.ts";
import { commandStop } from "./life.ts";
import { type Attempt, type Instance, inFlight } from "./model.ts";
import { enter } from "./phases.ts";
import { commandFreeze } from "./sleep.ts";
import { armInstance } from "./timing.ts";

export function beginAttempt(ctx: Context, instance: Instance, to: Attempt["to"]): void {
  if (instance.phase.kind !== "ready" || instance.phase.attempt || instance.phase.command) return;
  const until = ctx.at.mono + ctx.config.quiesceMs;
  enter(ctx, instance, { kind: "ready", attempt: { to, until } });
  armInstance(ctx, instance, until);
  publish(ctx, instance);
  settleQuiet(ctx, instance);
}

export function beginIdleStop(ctx: Context, instance: Instance, reason: ExitReason): void {
  beginAttempt(ctx, instance, { kind: "stop", reason });
}

export function cancelAttempt(ctx: Context, instance: Instance): void {
  if (instance.phase.kind !== "ready" || !instance.phase.attempt) return;
  enter(ctx, instance, { kind: "ready" });
  instance.notBefore = ctx.at.mono + ctx.config.quiesceAgainMs;
  armInstance(ctx, instance, instance.notBefore);
  count(ctx, "quiesce_cancelled");
  publish(ctx, instance);
}

/** Goes on with a quiescing or draining instance if every gateway has confirmed its version. */
export function settleQuiet(ctx: Context, instance: Instance): void {
  const { phase } = instance;
  if (phase.kind !== "draining" && !(phase.kind === "ready" && phase.attempt)) return;
  // To a new scheduler gateways come back one by one: until they had the time to, their silence says nothing (rule 3).
  const back = ctx.state.since + ctx.config.gatewayReturnMs;
  if (ctx.at.mono < back && phase.kind === "draining") {
    armInstance(ctx, instance, Math.min(back, phase.until));
    return;
  }
  for (const gateway of ctx.state.gateways.keys()) {
    const teller = instance.tellers.get(gateway);
    if ((teller?.sealed ?? 0) < instance.version) return;
  }
  // A client that reaches it directly has no part in sealing, but what it has in flight counts.
  if (phase.kind === "draining") {
    if (phase.patient && inFlight(ctx.state, instance, ctx.at, ctx.config) > 0) return;
    commandStop(ctx, instance, phase.reason);
  } else if (phase.attempt?.to.kind === "stop") commandStop(ctx, instance, phase.attempt.to.reason, true);
  else commandFreeze(ctx, instance, "freeze");
}

/**
 * Whether an attempt to put it away may be made: it serves, nothing is in flight (rule 3), it has been unused for
 * `idleMs`, and gateways have had time to come back to a new scheduler and say what they have in flight.
 */
export function mayLeave(ctx: Context, instance: Instance, idleMs: number): boolean {
  const { state, at, config } = ctx;
  const { phase } = instance;
  return (
    phase.kind === "ready" &&
    !phase.attempt &&
    !phase.command &&
    !instance.lost &&
    at.mono - state.since >= config.gatewayReturnMs &&
    at.mono >= instance.notBefore &&
    at.mono - instance.lastUsed >= idleMs &&
    inFlight(state, instance, at, config) === 0
  );
}
