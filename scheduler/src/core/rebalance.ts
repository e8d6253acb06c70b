/**
 * Slowly evens out nodes, where that is asked for: one instance at a time from the fullest to where it fits, only what can
 * be replaced first, and only while the difference is worth it.
 */
import { isAtMostOne } from "@warren/common/tenant-files";
import { type Context, count } from "./context.ts";
import { peakOf } from "./estimate.ts";
import { instancesOn, type Node, serving } from "./model.ts";
import { mayLeave } from "./quiesce.ts";
import { requestMove } from "./replace.ts";

/** A difference of filling below this is left alone. */
const worthwhile = 0.3;

export function rebalance(ctx: Context): void {
  const { state, config } = ctx;
  if (!config.rebalance || state.moves.size > 0 || state.queue.size > 0) return;
  const nodes = state.roster.filter((node) => node.confirmed && !node.lost && !node.cordoned);
  if (nodes.length < 2) return;
  const filled = (node: Node) =>
    peakOf(node.charged.memory) / Math.max(1, Number(node.capacity?.memoryBytes ?? 0n));
  const fullest = nodes.reduce((a, b) => (filled(b) > filled(a) ? b : a));
  const emptiest = nodes.reduce((a, b) => (filled(b) < filled(a) ? b : a));
  if (filled(fullest) - filled(emptiest) < worthwhile) return;
  for (const instance of instancesOn(state, fullest)) {
    const tenant = state.tenants.get(instance.ref.tenant);
    if (!tenant || !mayLeave(ctx, instance, 0)) continue;
    const revision = serving(tenant);
    if (isAtMostOne(revision.spec)) continue;
    const placeBy = ctx.at.mono + config.rebalanceMs;
    requestMove(ctx, tenant, { old: instance.ref, why: "rebalance", revision, placeBy, stopFirst: false });
    count(ctx, "rebalanced");
    return;
  }
}
