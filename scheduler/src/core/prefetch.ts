/** Which nodes should have a tenant's release before its first visitor comes: those that a start would choose. Pure. */
import type { Context } from "./context.ts";
import { type Node, serving, type Tenant } from "./model.ts";
import { place } from "./place.ts";
import { wantedOf } from "./wanted.ts";

/** The best first; fewer than `most` where no more could take it now. */
export function prefetchNodes(
  ctx: Pick<Context, "state" | "config" | "at" | "random">,
  tenant: Tenant,
  most: number,
): Node[] {
  const wanted = wantedOf(ctx, tenant, { revision: serving(tenant) });
  const chosen: Node[] = [];
  while (chosen.length < most) {
    const roster = ctx.state.roster.filter((node) => !chosen.includes(node));
    const result = place({ ...wanted, roster, holders: [], random: ctx.random });
    if (result.kind !== "placed") break;
    chosen.push(result.node);
  }
  return chosen;
}
