/**
 * The life of one instance, from its placement until its node has said that nothing of it is left. Only then is its
 * place under the cap free (rule 1).
 */
import { create } from "@bufbuild/protobuf";
import { fromDuration, fromTimestamp } from "@warren/common/time";
import {
  type Exit,
  ExitReason,
  ExitSchema,
  InstanceMode,
  InstanceRefSchema,
  InstanceState,
  PlacementDecidedSchema,
  type Instance as ReportedInstance,
} from "@warren/proto/common";
import { hostNameOf } from "./addresses.ts";
import { observeUsage } from "./charge.ts";
import { type Context, count } from "./context.ts";
import { publish, routable, withdraw } from "./endpoints.ts";
import { noteEnd } from "./failures.ts";
import { holds } from "./holders.ts";
import type { StartOutcome } from "./inputs.ts";
import {
  type Instance,
  type Node,
  type Phase,
  type Revision,
  specOf,
  standingSlots,
  type Tenant,
} from "./model.ts";
import { enter, track, untrack } from "./phases.ts";
import { moveEnded, successorReady } from "./replace.ts";
import { noteDeparture, settleOwed } from "./restart.ts";
import { setMode } from "./sleep.ts";
import { armInstance } from "./timing.ts";
import { giveVolumes, restoreMs, startVolumes, volumesMade, volumesNotTaken } from "./volumes.ts";
import { answerWaiters, refuseUnserved } from "./waiters.ts";

/** A generation is (epoch, number of the placement in it): it rises over epochs with nothing but the epoch persisted. */
const placementsPerEpoch = 1_000_000_000n;

/** A start's RPC may take this much longer than its readiness timeout: fetching the release, queueing at the gate. */
const startSlackMs = 30_000;

/**
 * Places a new instance; it is commanded only once the placement is persisted.
 * @param replaces the instance whose slot it takes over once it is ready
 */
export function placeOn(
  ctx: Context,
  tenant: Tenant,
  node: Node,
  why: string,
  { slot, revision, replaces }: { slot: number; revision: Revision; replaces?: string },
): Instance {
  ctx.state.placements++;
  const { spec, version } = revision;
  const ref = create(InstanceRefSchema, {
    id: ctx.newId(),
    tenant: tenant.key,
    slot,
    generation: ctx.state.epoch * placementsPerEpoch + BigInt(ctx.state.placements),
    release: spec.source.case === "release" ? spec.source.value : "",
    node: node.name,
    specVersion: BigInt(version),
  });
  tenant.where = `on node ${node.name}: ${why}`;
  tenant.nowhere = undefined;
  tenant.evicted = undefined;
  tenant.lastRef = ref;
  const instance = track(ctx, ref, { kind: "persisting", boot: node.bootId });
  instance.replaces = replaces;
  count(ctx, "placements");
  giveVolumes(ctx, tenant.key, node, spec); // in the log before the placement
  ctx.emit({
    type: "persist",
    write: { kind: "placement", ref },
    durable: { type: "placement-durable", instance: ref.id },
    failed: { type: "placement-failed", instance: ref.id, message: "the store did not take the placement" },
  });
  settleOwed(ctx, tenant);
  ctx.emit({
    type: "event",
    tenant: tenant.key,
    payload: { case: "placement", value: create(PlacementDecidedSchema, { instance: ref, why }) },
  });
  return instance;
}

export function placementDurable(ctx: Context, instance: Instance): void {
  if (instance.phase.kind !== "persisting") return;
  const { boot, stopRequested } = instance.phase;
  const tenant = ctx.state.tenants.get(instance.ref.tenant);
  const node = ctx.state.nodes.get(instance.ref.node);
  // A new boot comes behind the placement in the log: a leader that finds the one without the other would take an instance
  // that lives on the new boot for one that went with the old.
  if (stopRequested || !tenant || !node?.confirmed || node.lost || node.bootId !== boot) {
    vanish(ctx, instance, "its node went before it was started");
    return;
  }
  const spec = specOf(tenant, instance.ref);
  const readiness = fromDuration(spec.readiness?.timeout, ctx.config.readinessMs);
  const volumes = startVolumes(ctx.state, tenant.key, spec);
  const until = ctx.at.mono + readiness + 2 * startSlackMs + restoreMs(volumes);
  enter(ctx, instance, { kind: "starting", since: ctx.at.mono, until });
  armInstance(ctx, instance, until);
  instance.asked = node.incarnation;
  ctx.emit({
    type: "start",
    ref: instance.ref,
    spec,
    volumes,
    agentUrl: node.agentUrl,
    incarnation: node.incarnation,
    hostName: hostNameOf(ctx.state, tenant.key),
    timeoutMs: readiness + startSlackMs,
  });
}

export function placementFailed(ctx: Context, instance: Instance, message: string): void {
  ctx.state.placeAgainAt = ctx.at.mono + ctx.config.stopAgainMs;
  if (!instance.replaces) {
    refuseUnserved(ctx, instance.ref.tenant, { kind: "store-down", message }, instance);
  }
  vanish(ctx, instance, message);
}

/** The answer to StartInstance. */
export function started(ctx: Context, instance: Instance, outcome: StartOutcome): void {
  switch (outcome.kind) {
    case "answered":
      // Without a process nothing was made for it, perhaps not even its volumes.
      if (outcome.instance.pid > 0 || outcome.instance.state === InstanceState.READY)
        volumesMade(ctx, instance);
      observe(ctx, instance, outcome.instance);
      return;
    case "refused": {
      volumesNotTaken(ctx, instance, outcome.message);
      const exit = create(ExitSchema, { reason: ExitReason.UNSPECIFIED, message: outcome.message });
      if (outcome.elsewhere) avoid(ctx, instance);
      else if (!instance.replaces) {
        const refusal = { kind: "start-failed", instance: instance.ref, exit } as const;
        refuseUnserved(ctx, instance.ref.tenant, refusal, instance);
      }
      vanish(ctx, instance, outcome.message, outcome.elsewhere ? undefined : exit);
      return;
    }
    case "unknown":
      avoid(ctx, instance);
      // It may have been started: only the agent's word that it is gone frees the place.
      if (instance.phase.kind === "starting") commandStop(ctx, instance, ExitReason.UNKNOWN);
  }
}

/** The tenant is not placed there again at once. Of no concern to other tenants (rule 6). */
function avoid(ctx: Context, { ref }: Instance): void {
  const tenant = ctx.state.tenants.get(ref.tenant);
  if (!tenant) return;
  tenant.avoid ??= new Map();
  for (const [node, until] of tenant.avoid) if (until <= ctx.at.mono) tenant.avoid.delete(node);
  tenant.avoid.set(ref.node, ctx.at.mono + ctx.config.nodePenaltyMs);
}

/** What the node says of an instance, in whatever order it arrives. States are monotone, so late news is harmless. */
export function observe(ctx: Context, instance: Instance, seen: ReportedInstance): void {
  instance.asked = undefined;
  if (seen.state > (instance.told?.state ?? 0)) instance.told = { state: seen.state, at: ctx.at.mono };
  if (seen.pid) instance.pid = seen.pid;
  instance.startedAtWall = fromTimestamp(seen.startedAt, instance.startedAtWall);
  instance.startMs = fromDuration(seen.startDuration, instance.startMs);
  instance.isolation ||= seen.isolation;
  instance.startPhases ??= seen.startPhases;
  if (seen.wakes > instance.wakes) instance.wakes = seen.wakes;
  if (seen.usage) observeUsage(ctx, instance, seen.usage);
  if (seen.state === InstanceState.EXITED) {
    gone(ctx, instance, seen.exit ?? create(ExitSchema, { reason: ExitReason.UNKNOWN }));
  } else if (seen.state === InstanceState.READY && seen.endpoint) {
    // What it did when it was seen may be long ago; it says of itself what it does now.
    becameReady(ctx, instance, seen.endpoint, { mode: InstanceMode.UNSPECIFIED, wakes: seen.wakes });
  }
}

export function becameReady(
  ctx: Context,
  instance: Instance,
  endpoint: ReportedInstance["endpoint"],
  { mode, wakes }: { mode: InstanceMode; wakes: bigint },
): void {
  if (instance.phase.kind !== "starting" && instance.phase.kind !== "unconfirmed") return;
  if (instance.lost) return; // its answer comes another way than its node's reports: whether it stays is seen then
  if (instance.phase.kind === "starting") count(ctx, "starts");
  enter(ctx, instance, { kind: "ready" });
  instance.readySince = ctx.at.mono;
  instance.endpoint = endpoint;
  instance.lastUsed = ctx.at.mono;
  setMode(ctx, instance, mode, wakes);
  holds(ctx.state, instance.ref);
  publish(ctx, instance);
  armInstance(ctx, instance, ctx.at.mono); // for the first step of its sleep
  const tenant = ctx.state.tenants.get(instance.ref.tenant);
  if (tenant) tenant.scale = Math.max(tenant.scale, standingSlots(ctx.state, tenant.key));
  answerWaiters(ctx, instance);
  successorReady(ctx, instance);
  ctx.roomOn.add(instance.ref.node); // it may start the next one
}

/**
 * Commands the agent to stop it now. The command is repeated until the agent says that nothing is left.
 * @param onlyIfUnused it is stopped for being idle: not if it was thawed since
 */
export function commandStop(
  ctx: Context,
  instance: Instance,
  reason: ExitReason,
  onlyIfUnused = false,
): void {
  if (routable(instance)) withdraw(ctx, instance);
  const ifWakes = onlyIfUnused ? instance.wakes : undefined;
  const phase = { kind: "stopping" as const, reason, askAgainAt: ctx.at.mono, asked: false, ifWakes };
  enter(ctx, instance, phase);
  askToStop(ctx, instance, phase);
}

/**
 * Its agent ends it unasked: it is unhealthy, over a limit, or the agent itself stops. Nothing new goes there. The agent
 * is on it, and its reason stands; only one that comes back is asked.
 */
export function stopsByItself(ctx: Context, instance: Instance): void {
  if (instance.phase.kind !== "ready") return;
  if (routable(instance)) withdraw(ctx, instance);
  enter(ctx, instance, {
    kind: "stopping",
    reason: ExitReason.UNKNOWN,
    askAgainAt: ctx.at.mono,
    asked: true,
  });
}

/** Sends the command, if the node can be told; it is tried again until then. */
export function askToStop(
  ctx: Context,
  instance: Instance,
  phase: Extract<Phase, { kind: "stopping" }>,
): void {
  if (phase.asked) return;
  const node = ctx.state.nodes.get(instance.ref.node);
  if (ctx.at.mono < phase.askAgainAt || !node?.confirmed || node.lost) {
    armInstance(ctx, instance, Math.max(phase.askAgainAt, ctx.at.mono + ctx.config.stopAgainMs));
    return;
  }
  phase.asked = true;
  const tenant = ctx.state.tenants.get(instance.ref.tenant);
  const stop = tenant && specOf(tenant, instance.ref).stop;
  ctx.emit({
    type: "stop",
    ref: instance.ref,
    reason: phase.reason,
    graceMs: fromDuration(stop?.grace, ctx.config.graceMs),
    ifWakes: phase.ifWakes,
    agentUrl: node.agentUrl,
  });
}

/** The answer to StopInstance. */
export function stopAnswered(
  ctx: Context,
  instance: Instance,
  answer: { gone?: ReportedInstance; error?: string; thawed?: bigint },
): void {
  const { phase } = instance;
  if (phase.kind !== "stopping") return;
  if (answer.thawed !== undefined && phase.ifWakes !== undefined) {
    // Somebody woke it while it was about to go: it serves on (rule 3).
    instance.wakes = answer.thawed;
    instance.mode = InstanceMode.ACTIVE;
    instance.lastUsed = ctx.at.mono;
    enter(ctx, instance, { kind: "ready" });
    count(ctx, "stops_undone");
    publish(ctx, instance);
    armInstance(ctx, instance, ctx.at.mono);
    answerWaiters(ctx, instance);
    return;
  }
  if (answer.error !== undefined) {
    phase.asked = false;
    phase.askAgainAt = ctx.at.mono + ctx.config.stopAgainMs;
    armInstance(ctx, instance, phase.askAgainAt);
    return;
  }
  if (answer.gone?.usage) observeUsage(ctx, instance, answer.gone.usage);
  gone(ctx, instance, answer.gone?.exit ?? create(ExitSchema, { reason: phase.reason }));
}

/** Nothing of it is left. */
export function gone(ctx: Context, instance: Instance, exit: Exit): void {
  const { phase, readySince } = instance;
  const served = readySince === undefined ? 0 : Math.max(1, ctx.at.mono - readySince);
  const tenant = ctx.state.tenants.get(instance.ref.tenant);
  count(ctx, `exits_${ExitReason[exit.reason]?.toLowerCase() ?? "other"}`);
  // What replaces another and never served says nothing of the tenant that runs.
  const onTrial = instance.replaces !== undefined && served === 0;
  if (tenant && !onTrial) noteEnd(ctx, tenant, exit, served);
  if (phase.kind === "starting" && !onTrial) {
    const refusal = { kind: "start-failed", instance: instance.ref, exit } as const;
    refuseUnserved(ctx, instance.ref.tenant, refusal, instance);
  }
  vanish(ctx, instance, "it ended before it was ready", exit);
}

/**
 * It is out of the books, and its placement out of the log, unless it is owed a successor. Whoever waited goes on
 * waiting, for another one.
 * @param exit how it ended; none if it never existed, or nobody knows
 */
export function vanish(ctx: Context, instance: Instance, why: string, exit?: Exit): void {
  const { id } = instance.ref;
  if (routable(instance)) withdraw(ctx, instance);
  untrack(ctx, instance);
  moveEnded(ctx, instance, why, exit);
  const owed = noteDeparture(ctx, instance, exit);
  if (!owed) ctx.emit({ type: "persist", write: { kind: "placement-gone", id } });
  ctx.ended.push(instance.ref);
}
