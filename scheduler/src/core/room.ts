/**
 * Room on a node for a tenant that no node can take just now. Only what mends the shortage is touched: a place is given
 * back by any instance, memory by as much as an instance really holds. Where a node can page out, its idle instances sleep
 * deeper rather than end. What only predictions of unmeasured instances lack is waited for: they are measured in seconds.
 */
import { EvictionBound } from "@warren/proto/common";
import { heldBy } from "./charge.ts";
import type { Context } from "./context.ts";
import { type Estimate, minus, nothing, plus } from "./estimate.ts";
import { evict, leavingSoon, mayEvict, mostLooked } from "./evict.ts";
import { memoryLack, placesLack, refusing, type Wanted } from "./filters.ts";
import { type Instance, instancesOn, type Node, type Tenant } from "./model.ts";
import { canSleepDeeper, relieveAgainMs, sleepDeeper } from "./pressure.ts";

/** What the going of an instance mends. */
export const roomFilters = ["memory", "instances"];

/** No node has room for a tenant, though the cap is not reached: idle instances go from one that could take it. */
export function makeRoomFor(ctx: Context, tenant: Tenant, wanted: Wanted): void {
  const { state } = ctx;
  if (leavingSoon(ctx) >= state.parked.size) return; // room is being made already
  const plans = new Map<string, Plan | undefined>();
  for (const id of state.lru.look(mostLooked)) {
    const victim = state.instances.get(id)!;
    const node = state.nodes.get(victim.ref.node);
    if (!node || !mayEvict(ctx, victim, tenant.key)) continue;
    if (!plans.has(node.name)) {
      const suits = !refusing(node, wanted, roomFilters);
      plans.set(node.name, suits ? new Plan(node, measured(ctx, node), wanted) : undefined);
    }
    const plan = plans.get(node.name);
    if (!plan || plan.isEnough) continue; // what it lacks comes by itself
    plan.take(victim);
    if (plan.isEnough) {
      carryOut(ctx, plan, tenant.key);
      return;
    }
  }
}

function carryOut(ctx: Context, plan: Plan, forWhom: string): void {
  const { node, lacksPlaces } = plan;
  const bound = lacksPlaces ? EvictionBound.NODE_INSTANCES : EvictionBound.NODE_MEMORY;
  const victims = plan.necessary();
  const sleepers = lacksPlaces ? [] : victims.filter((victim) => canSleepDeeper(ctx, victim));
  if (sleepers.length === 0) {
    for (const victim of victims) evict(ctx, victim, { bound, inFavourOf: forWhom });
  } else if (ctx.at.mono >= node.relieveAt) {
    node.relieveAt = ctx.at.mono + relieveAgainMs;
    for (const sleeper of sleepers) sleepDeeper(ctx, sleeper);
  }
}

/** What instances of known use need of a node's memory: it is really short only by these. */
function measured(ctx: Context, node: Node): Estimate {
  const unmeasured = instancesOn(ctx.state, node).filter((one) => !one.lost && !one.usage?.memoryBytes);
  return minus(
    node.charged.memory,
    unmeasured.reduce((sum, { charge }) => plus(sum, charge.memory), nothing),
  );
}

/** What some instances give back together. */
interface Freed {
  readonly places: number;
  readonly memory: Estimate;
  /** Bytes that they hold now. */
  readonly held: number;
}

/** Which instances of one node are to go, taken in the order of their last use. Sums are kept, since hundreds may be tried. */
class Plan {
  readonly #victims: Instance[] = [];
  #freed: Freed = { places: 0, memory: nothing, held: 0 };

  constructor(
    readonly node: Node,
    private readonly needed: Estimate,
    private readonly wanted: Wanted,
  ) {}

  get lacksPlaces(): boolean {
    return placesLack(this.node) > 0;
  }

  get isEnough(): boolean {
    return this.#suffices(this.#freed);
  }

  take(victim: Instance): void {
    if (!this.lacksPlaces && heldBy(victim) === 0) return; // its end would mend nothing
    this.#victims.push(victim);
    const { places, memory, held } = this.#freed;
    this.#freed = {
      places: places + 1,
      memory: plus(memory, victim.charge.memory),
      held: held + heldBy(victim),
    };
  }

  /** Those without whom it would not be enough. What gives back the least is spared first. */
  necessary(): readonly Instance[] {
    const spared = new Set<Instance>();
    let freed = this.#freed;
    for (const one of this.#victims.toSorted((a, b) => heldBy(a) - heldBy(b))) {
      const without = {
        places: freed.places - 1,
        memory: minus(freed.memory, one.charge.memory),
        held: freed.held - heldBy(one),
      };
      if (!this.#suffices(without)) continue;
      spared.add(one);
      freed = without;
    }
    return this.#victims.filter((one) => !spared.has(one));
  }

  #suffices({ places, memory, held }: Freed): boolean {
    if (placesLack(this.node) > places) return false;
    return memoryLack(this.node, this.wanted, { needed: minus(this.needed, memory), freed: held }) <= 0;
  }
}
