/**
 * A node that runs short of memory puts its idle instances down the ladder before their time, the least recently used
 * first: frozen and paged out where that gives memory back, else stopped.
 */
import { ExitReason, InstanceMode } from "@warren/proto/common";
import { type Context, count } from "./context.ts";
import { instancesOn, type Node } from "./model.ts";
import { beginAttempt, beginIdleStop, mayLeave } from "./quiesce.ts";
import { canPageOut, commandFreeze, isAsleep, isNeeded, timesOf } from "./sleep.ts";

/** Put down one step at a time, and until what that brings is looked at again, in ms. */
const atOnce = 8;
const againMs = 2_000;
/** Unused for less than so long, an instance is left alone even then, in ms. */
const leastIdleMs = 2_000;

export function isShort(node: Node, config: Context["config"]): boolean {
  const { pressure, capacity } = node;
  if (!pressure || !capacity) return false;
  const held = Number(pressure.tenantMemoryBytes);
  const all = Number(capacity.memoryBytes);
  return pressure.memoryFullAvg10 > config.memoryStall || (held > 0 && held > all * (1 - config.lowMemory));
}

export function relieve(ctx: Context, node: Node): void {
  if (ctx.at.mono < node.relieveAt || !isShort(node, ctx.config)) return;
  node.relieveAt = ctx.at.mono + againMs;
  const idle = instancesOn(ctx.state, node)
    .filter(
      (instance) =>
        mayLeave(ctx, instance, leastIdleMs) && timesOf(ctx, instance).stop < Number.POSITIVE_INFINITY,
    )
    .sort((a, b) => a.lastUsed - b.lastUsed);
  let put = 0;
  for (const instance of idle) {
    if (put >= atOnce) break;
    const pages = canPageOut(ctx, instance);
    if (instance.mode === InstanceMode.PAGED_OUT) continue; // what it holds is next to nothing
    put++;
    if (pages && isAsleep(instance)) commandFreeze(ctx, instance, "page-out");
    else if (pages && timesOf(ctx, instance).freeze < Number.POSITIVE_INFINITY) {
      beginAttempt(ctx, instance, { kind: "freeze" });
    } else if (!isNeeded(ctx, instance)) beginIdleStop(ctx, instance, ExitReason.IDLE_KILLED);
  }
  count(ctx, "relieved", put);
}
