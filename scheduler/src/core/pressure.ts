/**
 * A node that runs short of memory puts its idle instances down the ladder before their time, the least recently used
 * first: frozen and paged out where that gives memory back, else stopped. One whose tasks wait for CPU freezes them: CPU
 * is compressible, so nobody is stopped for it, and those that are in use share what there is by their cgroups' weights.
 */
import { EvictionBound, InstanceMode } from "@warren/proto/common";
import { heldBy } from "./charge.ts";
import type { CoreConfig } from "./config.ts";
import { type Context, count } from "./context.ts";
import { evict } from "./evict.ts";
import { type Instance, instancesOn, type Node } from "./model.ts";
import { beginAttempt, mayLeave } from "./quiesce.ts";
import { canPageOut, commandFreeze, isAsleep, isNeeded, timesOf } from "./sleep.ts";

/** Put down one step at a time, and until what that brings is looked at again, in ms. */
const atOnce = 8;
export const relieveAgainMs = 2_000;
/** Unused for less than so long, an instance is left alone even then, in ms. */
const leastIdleMs = 2_000;

/** Bytes that are to be given back; a node that stalls on its memory gives back what `atOnce` of its instances hold. */
function lackOf({ pressure, capacity }: Node, { memoryStall, lowMemory }: CoreConfig): number {
  if (!pressure || !capacity) return 0;
  if (pressure.memoryFullAvg10 > memoryStall) return Number.POSITIVE_INFINITY;
  return Number(pressure.tenantMemoryBytes) - Number(capacity.memoryBytes) * (1 - lowMemory);
}

export function relieve(ctx: Context, node: Node): void {
  let lack = lackOf(node, ctx.config);
  if (lack <= 0 || ctx.at.mono < node.relieveAt) return;
  node.relieveAt = ctx.at.mono + relieveAgainMs;
  let put = 0;
  for (const instance of idleOn(ctx, node)) {
    if (put >= atOnce || lack <= 0) break;
    if (timesOf(ctx, instance).stop === Number.POSITIVE_INFINITY) continue;
    if (instance.mode === InstanceMode.PAGED_OUT) continue; // what it holds is next to nothing
    put++;
    lack -= heldBy(instance);
    if (canSleepDeeper(ctx, instance)) sleepDeeper(ctx, instance);
    else if (!isNeeded(ctx, instance))
      evict(ctx, instance, { bound: EvictionBound.NODE_MEMORY, inFavourOf: "" });
  }
  count(ctx, "relieved", put);
}

/** Those that nobody uses, the least recently used first. */
function idleOn(ctx: Context, node: Node): Instance[] {
  return instancesOn(ctx.state, node)
    .filter((instance) => mayLeave(ctx, instance, leastIdleMs))
    .sort((a, b) => a.lastUsed - b.lastUsed);
}

/** Whether it can give memory back without its end. */
export function canSleepDeeper(ctx: Context, instance: Instance): boolean {
  if (!canPageOut(ctx, instance) || instance.mode === InstanceMode.PAGED_OUT) return false;
  return isAsleep(instance) || timesOf(ctx, instance).freeze < Number.POSITIVE_INFINITY;
}

/** One step down, of two: frozen, then paged out. */
export function sleepDeeper(ctx: Context, instance: Instance): void {
  if (isAsleep(instance)) commandFreeze(ctx, instance, "page-out");
  else beginAttempt(ctx, instance, { kind: "freeze" });
}

export function easeCpu(ctx: Context, node: Node): void {
  const { at, config } = ctx;
  if (at.mono < node.easeAt || (node.pressure?.cpuSomeAvg10 ?? 0) <= config.cpuStall) return;
  node.easeAt = at.mono + relieveAgainMs;
  let put = 0;
  for (const instance of idleOn(ctx, node)) {
    if (put >= atOnce) break;
    if (isAsleep(instance) || timesOf(ctx, instance).freeze === Number.POSITIVE_INFINITY) continue;
    put++;
    beginAttempt(ctx, instance, { kind: "freeze" });
  }
  count(ctx, "eased", put);
}
