/** Eviction: an idle instance goes for the sake of another tenant, or of its node, and is told for which bound. */
import { create } from "@bufbuild/protobuf";
import { toDuration } from "@warren/common/time";
import { EvictionBound, EvictionDecidedSchema, ExitReason } from "@warren/proto/common";
import type { CoreConfig } from "./config.ts";
import { type Context, count } from "./context.ts";
import { type Instance, type Node, serving } from "./model.ts";
import { beginIdleStop, mayLeave } from "./quiesce.ts";
import { isNeeded } from "./sleep.ts";

/** Looked at in one step; where so many are busy, the next step goes on. */
export const mostLooked = 1_000;

/**
 * The cap is reached: the least recently used instances that may go make room for the tenants that wait.
 * @param excess live instances beyond the cap: those of a lost node that came back */
export function makeRoom(ctx: Context, excess: number): void {
  const { state } = ctx;
  const leaving = leavingSoon(ctx);
  const wanted = state.queue.size + excess - leaving;
  if (wanted <= 0) return;
  // In the order in which they will be admitted, past those for whom room is being made already; no more than are looked at.
  const waiting = firstOf(state.queue, leaving + mostLooked);
  const beneficiaries = waiting.slice(leaving);
  let made = 0;
  for (const id of state.lru.look(mostLooked)) {
    if (made >= wanted) return;
    const victim = state.instances.get(id)!;
    const forWhom = excess > made ? undefined : (beneficiaries[made - excess] ?? waiting[0]);
    if (!mayEvict(ctx, victim, forWhom)) continue;
    made++;
    evict(ctx, victim, { bound: EvictionBound.CLUSTER_INSTANCES, inFavourOf: forWhom ?? "" });
  }
}

function firstOf<T>(all: Iterable<T>, most: number): T[] {
  const first: T[] = [];
  for (const one of all) if (first.push(one) >= most) break;
  return first;
}

/** Instances whose places will be free without anyone doing more. */
export function leavingSoon(ctx: Context): number {
  let leaving = 0;
  for (const id of ctx.state.leaving) if (canConfirm(ctx, ctx.state.instances.get(id))) leaving++;
  return leaving;
}

/** Its place will be free without anyone doing more; where nobody can confirm that it is gone, it will not. */
function canConfirm({ state }: Context, instance: Instance | undefined): boolean {
  const node = instance && state.nodes.get(instance.ref.node);
  return node?.confirmed === true && !node.lost;
}

/** @param forWhom the tenant that needs the place; undefined: nobody, there are too many */
export function mayEvict(ctx: Context, victim: Instance, forWhom: string | undefined): boolean {
  if (!mayLeave(ctx, victim, ctx.config.minResidenceMs) || !canConfirm(ctx, victim)) return false;
  const { tenants, moves, successors } = ctx.state;
  if (moves.has(victim.ref.id) || successors.has(victim.ref.id)) return false;
  const owner = tenants.get(victim.ref.tenant);
  const heir = forWhom === undefined ? undefined : tenants.get(forWhom);
  if (!owner || !heir) return true;
  const [mine, theirs] = [serving(owner).spec.priority, serving(heir).spec.priority];
  // Never for a lower priority, and what a spec keeps at all times only for a higher one.
  return mine < theirs || (mine === theirs && owner !== heir && !isNeeded(ctx, victim));
}

interface Cause {
  readonly bound: EvictionBound;
  /** The tenant that needs the place; empty where its node is short of memory. */
  readonly inFavourOf: string;
}

export function evict(ctx: Context, victim: Instance, { bound, inFavourOf }: Cause): void {
  const { state, config, at } = ctx;
  count(ctx, "evictions");
  const node = state.nodes.get(victim.ref.node);
  const owner = state.tenants.get(victim.ref.tenant);
  const idleMs = at.mono - victim.lastUsed;
  const message = `${inFavourOf ? `for ${inFavourOf}` : "to relieve its node"}: ${boundText(bound, node, config)}`;
  if (owner) owner.evicted = { at: at.mono, message };
  ctx.emit({
    type: "event",
    tenant: victim.ref.tenant,
    payload: {
      case: "eviction",
      value: create(EvictionDecidedSchema, {
        instance: victim.ref,
        inFavourOf,
        idleFor: toDuration(idleMs),
        bound,
        message,
      }),
    },
  });
  beginIdleStop(ctx, victim, ExitReason.LRU_EVICTED);
}

/** The bound that was reached, with its figures, and what would help. */
function boundText(bound: EvictionBound, node: Node | undefined, { maxConcurrent }: CoreConfig): string {
  const name = node?.name ?? "its node";
  switch (bound) {
    case EvictionBound.UNSPECIFIED:
      return "a bound was reached";
    case EvictionBound.CLUSTER_INSTANCES:
      return `all ${maxConcurrent} live instances that the cluster may have (maxConcurrent) were taken; raise it, or let idle tenants stop sooner (idle.stopAfter)`;
    case EvictionBound.NODE_INSTANCES:
      return `all ${node?.capacity?.maxInstances ?? 0} instances that node ${name} may have (maxInstances) were taken; raise it, or add a node`;
    case EvictionBound.NODE_MEMORY:
      return `the ${gib(node?.capacity?.memoryBytes)} of memory that node ${name} has for tenants were taken; add memory or a node, or bound tenants by limits.memoryBytes`;
  }
}

const gib = (bytes = 0n) => `${Math.round((Number(bytes) / 2 ** 30) * 10) / 10} GiB`;
