/** How an instance comes into the books, changes its phase and leaves them: every count and index follows from here. */
import { isKeptAwake } from "@warren/common/spec-check";
import { InstanceMode, type InstanceRef, Isolation } from "@warren/proto/common";
import { charge, noNeed, recharge } from "./charge.ts";
import type { Context } from "./context.ts";
import { type Instance, isLeaving, type Node, type Phase, serving } from "./model.ts";

/** An instance that holds a place from now on. */
export function track(ctx: Context, ref: InstanceRef, phase: Phase): Instance {
  const { state, at } = ctx;
  const instance: Instance = {
    ref,
    phase,
    mode: InstanceMode.ACTIVE,
    wakes: 0n,
    isolation: Isolation.UNSPECIFIED,
    version: 0,
    lastUsed: at.mono,
    notBefore: 0,
    tellers: new Map(),
    pid: 0,
    startedAtWall: 0,
    startMs: 0,
    lost: false,
    charge: noNeed,
    armedAt: Number.POSITIVE_INFINITY,
  };
  state.instances.set(ref.id, instance);
  const ids = state.byTenant.get(ref.tenant);
  if (ids) ids.add(ref.id);
  else state.byTenant.set(ref.tenant, new Set([ref.id]));
  state.live++;
  const node = state.nodes.get(ref.node);
  node?.instances.add(ref.id);
  count(node, instance, 1);
  recharge(ctx, instance);
  enlist(ctx, instance);
  return instance;
}

/** Whatever changes its phase does it here. */
export function enter(ctx: Context, instance: Instance, phase: Phase): void {
  const node = ctx.state.nodes.get(instance.ref.node);
  count(node, instance, -1);
  instance.phase = phase;
  count(node, instance, 1);
  enlist(ctx, instance);
}

/** It is out of the books. */
export function untrack(ctx: Context, instance: Instance): void {
  const { state } = ctx;
  const { id, tenant, node: name } = instance.ref;
  const node = state.nodes.get(name);
  charge(ctx, instance, noNeed);
  count(node, instance, -1);
  node?.instances.delete(id);
  state.instances.delete(id);
  const ids = state.byTenant.get(tenant);
  ids?.delete(id);
  if (ids?.size === 0) state.byTenant.delete(tenant);
  if (!instance.lost) state.live--;
  state.lru.delete(id);
  state.leaving.delete(id);
}

/** It was given up with its node: it holds no place. */
export function giveUp(ctx: Context, instance: Instance): void {
  const node = ctx.state.nodes.get(instance.ref.node);
  charge(ctx, instance, noNeed);
  count(node, instance, -1);
  instance.lost = true;
  ctx.state.live--;
  enlist(ctx, instance);
}

/** Its node is back, and it with it. */
export function takeBack(ctx: Context, instance: Instance): void {
  instance.lost = false;
  ctx.state.live++;
  count(ctx.state.nodes.get(instance.ref.node), instance, 1);
  recharge(ctx, instance);
  enlist(ctx, instance);
}

/** It was used: the last to go of its class. */
export function used(ctx: Context, instance: Instance, at: number): void {
  instance.lastUsed = Math.max(instance.lastUsed, at);
  if (instance.phase.kind === "ready" && !instance.lost)
    ctx.state.lru.use(instance.ref.id, rankOf(ctx, instance));
}

/** Lower priorities go first, and of one priority those that are to be kept warm last. */
function rankOf(ctx: Context, { ref }: Instance): number {
  const tenant = ctx.state.tenants.get(ref.tenant);
  if (!tenant) return 0;
  const { spec } = serving(tenant);
  return 2 * spec.priority + (isKeptAwake(spec) ? 1 : 0);
}

/** Holds the lists of who may go and of who is going to its phase. */
function enlist(ctx: Context, instance: Instance): void {
  const { state } = ctx;
  const { id } = instance.ref;
  if (instance.phase.kind === "ready" && !instance.lost) state.lru.add(id, rankOf(ctx, instance));
  else state.lru.delete(id);
  const { phase } = instance;
  const going = isLeaving(instance) || (phase.kind === "ready" && phase.attempt?.to.kind === "stop");
  if (going && !instance.lost) state.leaving.add(id);
  else state.leaving.delete(id);
}

function count(node: Node | undefined, { phase, lost }: Instance, by: 1 | -1): void {
  if (!node || lost) return;
  node.placed += by;
  if (phase.kind === "persisting" || phase.kind === "starting") node.starting += by;
}
