/** Ending an instance because somebody wants it: what it is answering may finish first. */
import { fromDuration } from "@warren/common/time";
import type { ExitReason } from "@warren/proto/common";
import type { Context } from "./context.ts";
import { publish, withdraw } from "./endpoints.ts";
import { commandStop } from "./life.ts";
import { type Instance, isLeaving, specOf, standingSlots } from "./model.ts";
import { enter } from "./phases.ts";
import { settleQuiet } from "./quiesce.ts";
import { armInstance } from "./timing.ts";
import { answerWaiters } from "./waiters.ts";

/** Ends an instance: drains it first if it serves. Asked again, it changes nothing. */
export function beginStop(ctx: Context, instance: Instance, reason: ExitReason): void {
  switch (instance.phase.kind) {
    case "persisting":
      if (instance.phase.stopRequested === undefined) {
        enter(ctx, instance, { kind: "persisting", stopRequested: reason });
      }
      return;
    case "starting":
    case "unconfirmed":
      commandStop(ctx, instance, reason);
      return;
    case "ready":
      drain(ctx, instance, reason, false);
      return;
    case "draining":
      // A patient drain becomes one that ends.
      if (instance.phase.patient) drain(ctx, instance, reason, false);
      return;
    case "stopping":
      return;
  }
}

/** Its node is lost: it is stopped at first contact, whatever stands by its tenant's name by then. */
export function condemn(ctx: Context, instance: Instance, reason: ExitReason): void {
  if (isLeaving(instance)) return;
  enter(ctx, instance, { kind: "stopping", reason, askAgainAt: ctx.at.mono, asked: false });
}

/** Takes one away that the load does not need: it goes once nothing is in flight, else it stays. */
export function beginRetire(ctx: Context, instance: Instance, reason: ExitReason): void {
  if (instance.phase.kind === "ready" && !instance.lost) drain(ctx, instance, reason, true);
}

function drain(ctx: Context, instance: Instance, reason: ExitReason, patient: boolean): void {
  const tenant = ctx.state.tenants.get(instance.ref.tenant);
  const stop = tenant && specOf(tenant, instance.ref).stop;
  const until = ctx.at.mono + fromDuration(stop?.drain, ctx.config.drainMs);
  enter(ctx, instance, { kind: "draining", reason, until, patient });
  armInstance(ctx, instance, until);
  withdraw(ctx, instance);
  settleQuiet(ctx, instance);
}

/** The drain's time is over. */
export function drainOver(ctx: Context, instance: Instance): void {
  const { phase } = instance;
  if (phase.kind !== "draining") return;
  if (!phase.patient) {
    commandStop(ctx, instance, phase.reason);
    return;
  }
  enter(ctx, instance, { kind: "ready" });
  const tenant = ctx.state.tenants.get(instance.ref.tenant);
  if (tenant) tenant.scale = Math.max(tenant.scale, standingSlots(ctx.state, tenant.key));
  publish(ctx, instance);
  armInstance(ctx, instance, ctx.at.mono);
  answerWaiters(ctx, instance);
}
