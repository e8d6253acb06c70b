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
  type InstanceRef,
  InstanceRefSchema,
  InstanceState,
  Isolation,
  PlacementDecidedSchema,
  type Instance as ReportedInstance,
} from "@warren/proto/common";
import { type Context, count } from "./context.ts";
import { publish, routable, withdraw } from "./endpoints.ts";
import { noteEnd } from "./failures.ts";
import type { StartOutcome } from "./inputs.ts";
import type { Instance, Node, Phase, Tenant } from "./model.ts";
import { answerWaiters, refuseWaiters } from "./waiters.ts";

/** A generation is (epoch, number of the placement in it): it rises over epochs with nothing but the epoch persisted. */
const placementsPerEpoch = 1_000_000_000n;

/** A start's RPC may take this much longer than its readiness timeout: fetching the release, queueing at the gate. */
const startSlackMs = 30_000;

export function track(ctx: Context, ref: InstanceRef, phase: Phase): Instance {
  const instance: Instance = {
    ref,
    phase,
    mode: InstanceMode.ACTIVE,
    isolation: Isolation.UNSPECIFIED,
    version: 0,
    lastUsed: ctx.at.mono,
    notBefore: 0,
    tellers: new Map(),
    pid: 0,
    startedAtWall: 0,
    startMs: 0,
    lost: false,
  };
  ctx.state.instances.set(ref.id, instance);
  const ids = ctx.state.byTenant.get(ref.tenant);
  if (ids) ids.add(ref.id);
  else ctx.state.byTenant.set(ref.tenant, new Set([ref.id]));
  ctx.state.live++;
  return instance;
}

/** Places a new instance; it is commanded only once the placement is persisted. */
export function placeOn(ctx: Context, tenant: Tenant, node: Node, why: string): void {
  ctx.state.placements++;
  const ref = create(InstanceRefSchema, {
    id: ctx.newId(),
    tenant: tenant.key,
    slot: 0,
    generation: ctx.state.epoch * placementsPerEpoch + BigInt(ctx.state.placements),
    release: tenant.spec.source.case === "release" ? tenant.spec.source.value : "",
    node: node.name,
  });
  tenant.where = `on node ${node.name}: ${why}`;
  tenant.nowhere = undefined;
  tenant.lastRef = ref;
  track(ctx, ref, { kind: "persisting" });
  count(ctx, "placements");
  ctx.emit({
    type: "persist",
    write: { kind: "placement", ref },
    durable: { type: "placement-durable", instance: ref.id },
    failed: { type: "placement-failed", instance: ref.id, message: "the store did not take the placement" },
  });
  ctx.emit({
    type: "event",
    tenant: tenant.key,
    payload: { case: "placement", value: create(PlacementDecidedSchema, { instance: ref, why }) },
  });
}

export function placementDurable(ctx: Context, instance: Instance): void {
  if (instance.phase.kind !== "persisting") return;
  const tenant = ctx.state.tenants.get(instance.ref.tenant);
  const node = ctx.state.nodes.get(instance.ref.node);
  if (instance.phase.stopRequested || !tenant || !node?.confirmed || node.lost) {
    vanish(ctx, instance);
    return;
  }
  const readiness = fromDuration(tenant.spec.readiness?.timeout, ctx.config.readinessMs);
  instance.phase = {
    kind: "starting",
    since: ctx.at.mono,
    until: ctx.at.mono + readiness + 2 * startSlackMs,
  };
  ctx.emit({
    type: "start",
    ref: instance.ref,
    spec: tenant.spec,
    agentUrl: node.agentUrl,
    incarnation: node.incarnation,
    timeoutMs: readiness + startSlackMs,
  });
}

export function placementFailed(ctx: Context, instance: Instance, message: string): void {
  refuseWaiters(ctx, instance.ref.tenant, { kind: "store-down", message });
  vanish(ctx, instance);
}

/** The answer to StartInstance. */
export function started(ctx: Context, instance: Instance, outcome: StartOutcome): void {
  switch (outcome.kind) {
    case "answered":
      observe(ctx, instance, outcome.instance);
      return;
    case "refused": {
      if (outcome.elsewhere) avoid(ctx, instance);
      else {
        refuseWaiters(ctx, instance.ref.tenant, {
          kind: "start-failed",
          instance: instance.ref,
          exit: create(ExitSchema, { reason: ExitReason.UNSPECIFIED, message: outcome.message }),
        });
      }
      vanish(ctx, instance);
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
  for (const [node, until] of tenant.avoid) if (until <= ctx.at.mono) tenant.avoid.delete(node);
  tenant.avoid.set(ref.node, ctx.at.mono + ctx.config.nodePenaltyMs);
}

/** What the node says of an instance, in whatever order it arrives. States are monotone, so late news is harmless. */
export function observe(ctx: Context, instance: Instance, seen: ReportedInstance): void {
  if (seen.pid) instance.pid = seen.pid;
  instance.startedAtWall = fromTimestamp(seen.startedAt, instance.startedAtWall);
  instance.startMs = fromDuration(seen.startDuration, instance.startMs);
  instance.isolation ||= seen.isolation;
  instance.startPhases ??= seen.startPhases;
  if (seen.usage) instance.usage = seen.usage;
  if (seen.state === InstanceState.EXITED) {
    gone(ctx, instance, seen.exit ?? create(ExitSchema, { reason: ExitReason.UNKNOWN }));
  } else if (seen.state === InstanceState.READY && seen.endpoint) {
    becameReady(ctx, instance, seen.endpoint);
  }
}

export function becameReady(ctx: Context, instance: Instance, endpoint: ReportedInstance["endpoint"]): void {
  if (instance.phase.kind !== "starting" && instance.phase.kind !== "unconfirmed") return;
  if (instance.phase.kind === "starting") count(ctx, "starts");
  instance.phase = { kind: "ready" };
  instance.readySince = ctx.at.mono;
  instance.endpoint = endpoint;
  instance.lastUsed = ctx.at.mono;
  publish(ctx, instance);
  answerWaiters(ctx, instance);
}

/** Not from the answer to its start, which may come after the news that it was frozen. */
export function setMode(instance: Instance, mode: InstanceMode): void {
  if (mode !== InstanceMode.UNSPECIFIED) instance.mode = mode;
}

/** Commands the agent to stop it now. The command is repeated until the agent says that nothing is left. */
export function commandStop(ctx: Context, instance: Instance, reason: ExitReason): void {
  if (routable(instance)) withdraw(ctx, instance);
  const phase = { kind: "stopping" as const, reason, askAgainAt: ctx.at.mono, asked: false };
  instance.phase = phase;
  askToStop(ctx, instance, phase);
}

/**
 * Its agent ends it unasked: it is unhealthy, over a limit, or the agent itself stops. Nothing new goes there. The agent
 * is on it, and its reason stands; only one that comes back is asked.
 */
export function stopsByItself(ctx: Context, instance: Instance): void {
  if (instance.phase.kind !== "ready") return;
  if (routable(instance)) withdraw(ctx, instance);
  instance.phase = { kind: "stopping", reason: ExitReason.UNKNOWN, askAgainAt: ctx.at.mono, asked: true };
}

/** Sends the command, if the node can be told; the tick tries again. */
export function askToStop(
  ctx: Context,
  instance: Instance,
  phase: Extract<Phase, { kind: "stopping" }>,
): void {
  const node = ctx.state.nodes.get(instance.ref.node);
  if (phase.asked || ctx.at.mono < phase.askAgainAt || !node?.confirmed || node.lost) return;
  phase.asked = true;
  const grace = fromDuration(
    ctx.state.tenants.get(instance.ref.tenant)?.spec.stop?.grace,
    ctx.config.graceMs,
  );
  ctx.emit({
    type: "stop",
    ref: instance.ref,
    reason: phase.reason,
    graceMs: grace,
    agentUrl: node.agentUrl,
  });
}

/** The answer to StopInstance. */
export function stopAnswered(
  ctx: Context,
  instance: Instance,
  ended: ReportedInstance | undefined,
  error: string | undefined,
): void {
  if (instance.phase.kind !== "stopping") return;
  if (error !== undefined) {
    instance.phase.asked = false;
    instance.phase.askAgainAt = ctx.at.mono + ctx.config.stopAgainMs;
    return;
  }
  if (ended?.usage) instance.usage = ended.usage;
  gone(ctx, instance, ended?.exit ?? create(ExitSchema, { reason: instance.phase.reason }));
}

/** Nothing of it is left. */
export function gone(ctx: Context, instance: Instance, exit: Exit): void {
  const { phase, readySince } = instance;
  const served = readySince === undefined ? 0 : ctx.at.mono - readySince;
  const tenant = ctx.state.tenants.get(instance.ref.tenant);
  count(ctx, `exits_${ExitReason[exit.reason]?.toLowerCase() ?? "other"}`);
  if (tenant) noteEnd(ctx, tenant, exit, served);
  if (phase.kind === "starting") {
    refuseWaiters(ctx, instance.ref.tenant, { kind: "start-failed", instance: instance.ref, exit });
  }
  vanish(ctx, instance);
}

/** It is gone, and nobody is to blame: whoever waited goes on waiting, for another one. */
export function vanish(ctx: Context, instance: Instance): void {
  const { state } = ctx;
  const { id, tenant } = instance.ref;
  if (routable(instance)) withdraw(ctx, instance);
  state.instances.delete(id);
  const ids = state.byTenant.get(tenant);
  ids?.delete(id);
  if (ids?.size === 0) state.byTenant.delete(tenant);
  if (!instance.lost) state.live--;
  ctx.emit({ type: "persist", write: { kind: "placement-gone", id } });
  ctx.ended.push(instance.ref);
}
