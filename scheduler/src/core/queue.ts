/**
 * Tenants that want an instance: admitted below the cap, first come first served; at the cap the least recently used
 * instance that is not busy makes room, and its place is taken only when it is gone (rule 1).
 */
import { create } from "@bufbuild/protobuf";
import { toDuration } from "@warren/common/time";
import { EvictionDecidedSchema, ExitReason } from "@warren/proto/common";
import { type Context, count } from "./context.ts";
import { backingOff } from "./failures.ts";
import { placeOn } from "./life.ts";
import { type Instance, inFlight, placedOn, standing, type Tenant } from "./model.ts";
import { place } from "./place.ts";
import { beginQuiesce } from "./quiesce.ts";
import { hasWaiters, refuseWaiters } from "./waiters.ts";

/** Admits whom it can, and makes room for the others. */
export function pump(ctx: Context): void {
  const { state, config } = ctx;
  const blocked: Tenant[] = [];
  for (const key of state.queue) {
    const tenant = state.tenants.get(key);
    if (!tenant || !hasWaiters(state, key) || standing(ctx.state, key)) {
      state.queue.delete(key);
      continue;
    }
    const held = backingOff(ctx, tenant);
    if (held) {
      state.queue.delete(key);
      refuseWaiters(ctx, key, held);
    } else if (state.live < config.maxConcurrent) {
      admit(ctx, tenant);
    } else {
      blocked.push(tenant);
    }
  }
  const excess = Math.max(0, state.live - config.maxConcurrent);
  if (blocked.length + excess > 0) makeRoom(ctx, blocked, excess);
}

function admit(ctx: Context, tenant: Tenant): void {
  const { state, config, at } = ctx;
  const result = place({
    spec: tenant.spec,
    nodes: state.nodes.values(),
    placed: (node) => placedOn(state, node),
    avoided: tenant.avoid,
    mono: at.mono,
    lateMs: config.nodeLateMs,
    defaultMemoryBytes: config.defaultMemoryBytes,
    random: ctx.random,
  });
  if (result.kind === "placed") {
    state.queue.delete(tenant.key);
    placeOn(ctx, tenant, result.node, result.why);
    return;
  }
  tenant.nowhere = result.refused;
  if (result.transient) return; // it stays queued: nodes come and go, its deadline bounds the wait
  state.queue.delete(tenant.key);
  count(ctx, "refused_no_node");
  refuseWaiters(ctx, tenant.key, {
    kind: "no-node",
    tenant: tenant.key,
    refused: result.refused,
    transient: false,
  });
}

/** @param excess live instances beyond the cap: those of a lost node that came back */
function makeRoom(ctx: Context, blocked: readonly Tenant[], excess: number): void {
  let leaving = 0;
  for (const instance of ctx.state.instances.values()) if (isLeaving(ctx, instance)) leaving++;
  const victims = leastRecentlyUsed(ctx, blocked.length + excess - leaving);
  victims.forEach((victim, i) => {
    count(ctx, "evictions");
    ctx.emit({
      type: "event",
      tenant: victim.ref.tenant,
      payload: {
        case: "eviction",
        value: create(EvictionDecidedSchema, {
          instance: victim.ref,
          inFavourOf: (blocked[leaving + i] ?? blocked[0])?.key ?? "",
          idleFor: toDuration(ctx.at.mono - victim.lastUsed),
        }),
      },
    });
    beginQuiesce(ctx, victim, ExitReason.LRU_EVICTED);
  });
}

/** Its place will be free without anyone doing more. */
function isLeaving({ state }: Context, { phase, lost, ref }: Instance): boolean {
  const node = state.nodes.get(ref.node);
  if (lost || !node?.confirmed || node.lost) return false; // nobody can confirm that it is gone
  if (phase.kind === "ready") return phase.quiescing !== undefined;
  if (phase.kind === "persisting") return phase.stopRequested !== undefined;
  return phase.kind === "draining" || phase.kind === "stopping";
}

function leastRecentlyUsed(ctx: Context, most: number): Instance[] {
  if (most <= 0) return [];
  return [...ctx.state.instances.values()]
    .filter((instance) => mayLeave(ctx, instance, ctx.config.minResidenceMs))
    .sort((a, b) => keepWarm(ctx, a) - keepWarm(ctx, b) || a.lastUsed - b.lastUsed)
    .slice(0, most);
}

function keepWarm(ctx: Context, instance: Instance): number {
  return ctx.state.tenants.get(instance.ref.tenant)?.spec.idle?.keepWarm ? 1 : 0;
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
    !phase.quiescing &&
    !instance.lost &&
    at.mono - state.since >= config.gatewayReturnMs &&
    at.mono >= instance.notBefore &&
    at.mono - instance.lastUsed >= idleMs &&
    inFlight(state, instance, at, config) === 0
  );
}
