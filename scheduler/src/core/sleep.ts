/**
 * Down and up the ladder: active → frozen → paged out → stopped, each by the time since the last use (sleep-times.ts).
 * Freezing and stopping go by way of QUIESCING; a page-out needs none, since what is frozen serves nobody and a thaw in
 * between undoes it. Waking needs no decision: gateways thaw by themselves, and say so by what they have in flight.
 */
import { ExitReason, InstanceMode } from "@warren/proto/common";
import { recharge } from "./charge.ts";
import { type Context, count } from "./context.ts";
import { bounds } from "./desire.ts";
import { publish, routable } from "./endpoints.ts";
import type { SleepOutcome } from "./inputs.ts";
import { commandStop } from "./life.ts";
import { type Command, type Instance, serving, standingSlots } from "./model.ts";
import { enter, used } from "./phases.ts";
import { beginAttempt, beginIdleStop, cancelAttempt, mayLeave } from "./quiesce.ts";
import { type SleepTimes, sleepTimes } from "./sleep-times.ts";
import { armInstance } from "./timing.ts";
import { answerWaiters, hasWaiters, refuseWaiters } from "./waiters.ts";

/** After a refused freeze, until the next try, in ms; a host that cannot is not asked all the time. */
const freezeAgainMs = 30_000;

export function isAsleep({ mode }: Instance): boolean {
  return mode === InstanceMode.FROZEN || mode === InstanceMode.PAGED_OUT;
}

/** Takes the next step down if it is due, and sees to it that the one after is looked at in time. */
export function stepDown(ctx: Context, instance: Instance): void {
  if (instance.phase.kind !== "ready" || instance.lost) return;
  const node = ctx.state.nodes.get(instance.ref.node);
  if (!node?.confirmed || node.lost) {
    // Nobody could be told: it is not asked to be quiet in vain, and looked at again when the node may be back.
    armInstance(ctx, instance, ctx.at.mono + nodeLookMs);
    return;
  }
  const times = timesOf(ctx, instance);
  const step = nextStep(ctx, instance, times);
  if (!step) {
    // A warm window or a change of its node may open the way: looked at now and then.
    armInstance(ctx, instance, ctx.at.mono + idleLookMs);
    return;
  }
  const due = Math.max(instance.lastUsed + step.after, instance.notBefore);
  if (due > ctx.at.mono) {
    armInstance(ctx, instance, Math.min(due, ctx.at.mono + idleLookMs));
    return;
  }
  if (!mayLeave(ctx, instance, step.after)) {
    armInstance(ctx, instance, ctx.at.mono + busyLookMs);
    return;
  }
  switch (step.to) {
    case "freeze":
      beginAttempt(ctx, instance, { kind: "freeze" });
      break;
    case "page-out":
      commandFreeze(ctx, instance, "page-out");
      break;
    case "stop":
      beginIdleStop(ctx, instance, ExitReason.IDLE_KILLED);
  }
}

/** So often an instance without a step to come is looked at, in ms; one that is due but busy; one whose node is away. */
const idleLookMs = 60_000;
const busyLookMs = 250;
const nodeLookMs = 5_000;

export function timesOf(ctx: Context, instance: Instance): SleepTimes {
  const tenant = ctx.state.tenants.get(instance.ref.tenant);
  return sleepTimes(tenant && serving(tenant).spec, tenant?.gaps, ctx.config, ctx.at.wall);
}

type Step = { readonly to: "freeze" | "page-out" | "stop"; readonly after: number };

function nextStep(ctx: Context, instance: Instance, times: SleepTimes): Step | undefined {
  const mayStop = times.stop < Number.POSITIVE_INFINITY && !isNeeded(ctx, instance);
  const stop: Step | undefined = mayStop ? { to: "stop", after: times.stop } : undefined;
  const other = isAsleep(instance)
    ? instance.mode === InstanceMode.FROZEN && canPageOut(ctx, instance)
      ? ({ to: "page-out", after: times.pageOut } as const)
      : undefined
    : times.freeze < Number.POSITIVE_INFINITY
      ? ({ to: "freeze", after: times.freeze } as const)
      : undefined;
  if (!other) return stop;
  return stop && stop.after <= other.after ? stop : other;
}

/** Without it the tenant would have fewer instances than its spec's minimum. */
export function isNeeded(ctx: Context, instance: Instance): boolean {
  const tenant = ctx.state.tenants.get(instance.ref.tenant);
  if (!tenant || tenant.paused) return false;
  return standingSlots(ctx.state, tenant.key) <= bounds(serving(tenant).spec).min;
}

export function canPageOut(ctx: Context, instance: Instance): boolean {
  return ctx.state.nodes.get(instance.ref.node)?.host?.canPageOut ?? false;
}

/** Tells its agent to freeze it, or to page it out. Until that is answered it stays sealed, or frozen. */
export function commandFreeze(ctx: Context, instance: Instance, kind: "freeze" | "page-out"): void {
  const node = ctx.state.nodes.get(instance.ref.node);
  if (instance.phase.kind !== "ready" || !node?.confirmed || node.lost) {
    cancelAttempt(ctx, instance);
    return;
  }
  const command = giveCommand(ctx, instance, kind);
  ctx.emit({
    type: "freeze",
    ref: instance.ref,
    ifWakes: instance.wakes,
    pageOut: kind === "page-out",
    command: command.number,
    agentUrl: node.agentUrl,
  });
}

/** Somebody wants it awake: its agent is told, whatever it was told before. */
export function commandThaw(ctx: Context, instance: Instance): void {
  if (instance.phase.kind !== "ready" || instance.phase.command?.kind === "thaw") return;
  const node = ctx.state.nodes.get(instance.ref.node);
  if (!node) return;
  // The freeze before it may yet be under way: only a thaw that was done says that it is undone.
  if (instance.phase.command) doubt(ctx, instance);
  const command = giveCommand(ctx, instance, "thaw");
  ctx.emit({ type: "thaw", ref: instance.ref, command: command.number, agentUrl: node.agentUrl });
}

function giveCommand(ctx: Context, instance: Instance, kind: Command["kind"]): Command {
  const command: Command = { kind, number: ++ctx.state.commands };
  enter(ctx, instance, { kind: "ready", command });
  return command;
}

/** The answer to a freeze, a page-out or a thaw. */
export function slept(ctx: Context, instance: Instance, number: number, outcome: SleepOutcome): void {
  const { phase } = instance;
  if (phase.kind !== "ready" || phase.command?.number !== number) return; // another came after it
  const { kind } = phase.command;
  enter(ctx, instance, { kind: "ready" });
  if (outcome.kind === "done") {
    instance.inDoubt = undefined;
    // News of a wake may have come before the answer to the freeze that it undid.
    const undone = kind !== "thaw" && outcome.wakes !== undefined && outcome.wakes < instance.wakes;
    if (outcome.wakes !== undefined && outcome.wakes > instance.wakes) instance.wakes = outcome.wakes;
    if (kind === "page-out") instance.isUsageStale = true;
    if (kind !== "thaw") count(ctx, kind === "page-out" ? "page_outs" : "freezes");
    instance.mode =
      kind === "thaw" || undone
        ? InstanceMode.ACTIVE
        : kind === "page-out"
          ? InstanceMode.PAGED_OUT
          : InstanceMode.FROZEN;
    recharge(ctx, instance);
  } else {
    if (outcome.kind === "thawed") {
      instance.inDoubt = undefined;
      instance.wakes = outcome.wakes;
      instance.mode = InstanceMode.ACTIVE;
    }
    if (kind === "freeze" && outcome.kind === "unknown") doubt(ctx, instance);
    // A thaw may have overtaken a freeze that nobody heard of: whoever waits goes on thawing it, awake or not.
    if (kind === "thaw" && outcome.kind !== "thawed" && outcome.kind !== "gone") doubt(ctx, instance);
    if (kind === "freeze" || kind === "page-out") {
      count(ctx, "freezes_refused");
      instance.notBefore =
        ctx.at.mono + (outcome.kind === "thawed" ? ctx.config.quiesceAgainMs : freezeAgainMs);
    }
  }
  if (kind === "thaw") afterThaw(ctx, instance, outcome);
  else if (hasWaiters(ctx.state, instance.ref.tenant)) commandThaw(ctx, instance);
  if (!routable(instance)) return;
  publish(ctx, instance);
  // A thaw that failed is not tried again at once.
  const vain = kind === "thaw" && (outcome.kind === "failed" || outcome.kind === "unknown");
  const pause = vain ? ctx.config.stopAgainMs : 0;
  armInstance(ctx, instance, ctx.at.mono + pause);
}

/** It may be frozen, or be so any moment: whoever has a request for it is to thaw it, which also undoes what is late. */
export function doubt(ctx: Context, instance: Instance): void {
  instance.inDoubt = true;
  instance.mode = InstanceMode.FROZEN;
  recharge(ctx, instance);
}

function afterThaw(ctx: Context, instance: Instance, outcome: SleepOutcome): void {
  const { tenant } = instance.ref;
  switch (outcome.kind) {
    case "done":
      used(ctx, instance, ctx.at.mono);
      answerWaiters(ctx, instance);
      return;
    case "gone":
      // Or it is on its way out there: only the answer to a stop says that nothing is left.
      commandStop(ctx, instance, ExitReason.UNKNOWN);
      return;
    case "full":
      refuseWaiters(ctx, tenant, { kind: "node-busy", tenant, message: outcome.message });
      return;
    case "thawed":
    case "failed":
      // Whoever waits goes on waiting, and it is tried again as long as somebody does.
      return;
  }
}

/** What its node says that it does. Woken by a gateway, it is told to the others as awake. */
export function setMode(ctx: Context, instance: Instance, mode: InstanceMode, wakes: bigint): void {
  if (wakes < instance.wakes) return; // it was woken since
  if (wakes > instance.wakes || mode > InstanceMode.ACTIVE) instance.inDoubt = undefined;
  instance.wakes = wakes;
  if (mode === InstanceMode.UNSPECIFIED || mode === instance.mode || instance.inDoubt) return;
  const slept = isAsleep(instance);
  instance.mode = mode;
  recharge(ctx, instance);
  const { phase } = instance;
  if (phase.kind !== "ready" || phase.command) return;
  if (mode === InstanceMode.ACTIVE && slept) {
    used(ctx, instance, ctx.at.mono);
    if (phase.attempt) cancelAttempt(ctx, instance);
    else if (routable(instance)) publish(ctx, instance);
    armInstance(ctx, instance, ctx.at.mono);
  } else if (!phase.attempt && !slept && routable(instance)) publish(ctx, instance);
}
