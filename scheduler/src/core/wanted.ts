/** What is to be placed for a tenant, as the filters look at it, and whether any node could ever take it as things stand. */
import { needOf } from "./charge.ts";
import type { Context } from "./context.ts";
import { bounds } from "./desire.ts";
import { refusing, type Wanted } from "./filters.ts";
import { instancesOf, type Move, type Revision, type Tenant } from "./model.ts";
import { periodsOf } from "./periods.ts";
import { wantedVolumes } from "./volumes.ts";

/** The instance that a tenant wants next. */
export interface Next {
  readonly slot: number;
  readonly revision: Revision;
  /** It replaces another one. */
  readonly move?: Move;
}

/** What is looked at of a step. */
type View = Pick<Context, "state" | "config" | "at">;

export function wantedOf(
  ctx: View,
  tenant: Tenant,
  { revision: { spec }, move }: Pick<Next, "revision" | "move">,
): Wanted {
  const { state, config, at } = ctx;
  return {
    spec,
    need: needOf(state, tenant, config),
    avoided: tenant.avoid,
    perNode: bounds(spec).max > 1 ? countByNode(ctx, tenant.key, move) : undefined,
    leaves: move && move.why !== "reload" ? move.old.node : undefined,
    ...wantedVolumes(state, tenant.key, spec),
    mono: at.mono,
    lateMs: periodsOf(config, state.nodes.size).late,
    config,
  };
}

/** What it has on each node; the one that is being replaced makes room by itself. */
function countByNode(ctx: View, tenant: string, move: Move | undefined): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { ref, lost } of instancesOf(ctx.state, tenant)) {
    if (!lost && ref.id !== move?.old.id) counts.set(ref.node, (counts.get(ref.node) ?? 0) + 1);
  }
  return counts;
}

/** Filters that pass with time, or with the end of the instance that makes way. */
const passing = [
  "not_reporting",
  "volume_busy",
  "instances",
  "per_node",
  "memory",
  "pressure",
  "starts",
  "failed",
];

/**
 * Nodes by reason, as a person reads it, if none of them could take the instance however long it waits; undefined if one
 * could. What serves must not be stopped for a successor that has nowhere to go.
 */
export function refusedByAll(ctx: Context, wanted: Wanted): Readonly<Record<string, number>> | undefined {
  const refused: Record<string, number> = {};
  for (const node of ctx.state.roster) {
    const filter = refusing(node, wanted, passing);
    if (!filter) return undefined;
    const text = filter.text(wanted.spec);
    refused[text] = (refused[text] ?? 0) + 1;
  }
  return refused;
}
