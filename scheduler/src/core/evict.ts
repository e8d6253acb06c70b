/** Making room at the cap: who has not been used for longest goes, if nothing is in flight and it has been there for long enough. */
import { create } from "@bufbuild/protobuf";
import { toDuration } from "@warren/common/time";
import { EvictionDecidedSchema, ExitReason } from "@warren/proto/common";
import { type Context, count } from "./context.ts";
import { refusing, type Wanted } from "./filters.ts";
import { type Instance, serving, type Tenant } from "./model.ts";
import { beginIdleStop, mayLeave } from "./quiesce.ts";
import { isNeeded } from "./sleep.ts";

/** Looked at in one step; where so many are busy, the next step goes on. */
const mostLooked = 1_000;

/** @param excess live instances beyond the cap: those of a lost node that came back */
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
    evict(ctx, victim, forWhom ?? "");
  }
}

function firstOf<T>(all: Iterable<T>, most: number): T[] {
  const first: T[] = [];
  for (const one of all) if (first.push(one) >= most) break;
  return first;
}

/** What the going of an instance mends. */
export const roomFilters = ["memory", "cpu", "instances"];

/** No node has room for a tenant, though the cap is not reached: an idle instance goes from one that could take it. */
export function makeRoomFor(ctx: Context, tenant: Tenant, wanted: Wanted): void {
  const { state } = ctx;
  if (leavingSoon(ctx) >= state.parked.size) return; // room is being made already
  for (const id of state.lru.look(mostLooked)) {
    const victim = state.instances.get(id)!;
    const node = state.nodes.get(victim.ref.node);
    if (!node || !mayEvict(ctx, victim, tenant.key) || refusing(node, wanted, roomFilters)) continue;
    evict(ctx, victim, tenant.key);
    return;
  }
}

function leavingSoon(ctx: Context): number {
  let leaving = 0;
  for (const id of ctx.state.leaving) if (canConfirm(ctx, ctx.state.instances.get(id))) leaving++;
  return leaving;
}

/** Its place will be free without anyone doing more; where nobody can confirm that it is gone, it will not. */
function canConfirm({ state }: Context, instance: Instance | undefined): boolean {
  const node = instance && state.nodes.get(instance.ref.node);
  return node?.confirmed === true && !node.lost;
}

function mayEvict(ctx: Context, victim: Instance, forWhom: string | undefined): boolean {
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

function evict(ctx: Context, victim: Instance, inFavourOf: string): void {
  count(ctx, "evictions");
  ctx.emit({
    type: "event",
    tenant: victim.ref.tenant,
    payload: {
      case: "eviction",
      value: create(EvictionDecidedSchema, {
        instance: victim.ref,
        inFavourOf,
        idleFor: toDuration(ctx.at.mono - victim.lastUsed),
      }),
    },
  });
  beginIdleStop(ctx, victim, ExitReason.LRU_EVICTED);
}
