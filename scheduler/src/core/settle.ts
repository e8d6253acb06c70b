/** What follows from a step: operations that waited for an end, tenants that want a successor, places that are free. */
import type { Context } from "./context.ts";
import { enqueue, wish } from "./desire.ts";
import { drainMoveEnded, drainProgress } from "./drain.ts";
import type { Move, MoveEnd } from "./model.ts";
import { completeOperations } from "./operations.ts";
import { pump } from "./queue.ts";
import { waitingMove } from "./replace.ts";
import { resumeRollout, rolloutMoveEnded } from "./rollout.ts";

/** Ends, since each round takes what the one before left, and a round ends no instance that it has not commanded. */
export function settle(ctx: Context): void {
  while (isUnsettled(ctx)) {
    ctx.pumpWanted = false;
    for (const { move, end } of ctx.movesEnded.splice(0)) moveOver(ctx, move, end);
    for (const ref of ctx.ended.splice(0)) {
      completeOperations(ctx, ref.tenant, ref);
      drainProgress(ctx, ref.node);
      const tenant = ctx.state.tenants.get(ref.tenant);
      if (tenant) {
        wish(ctx, tenant);
        if (waitingMove(ctx, tenant)) enqueue(ctx, tenant); // it may have waited for its slot
        resumeRollout(ctx, tenant);
      }
      ctx.roomOn.add(ref.node);
    }
    pump(ctx);
  }
}

function isUnsettled({ ended, movesEnded, pumpWanted, retryWanted, roomOn }: Context): boolean {
  return ended.length > 0 || movesEnded.length > 0 || pumpWanted || retryWanted || roomOn.size > 0;
}

/** Whoever wanted the replacement takes note. */
function moveOver(ctx: Context, move: Move, end: MoveEnd): void {
  const tenant = ctx.state.tenants.get(move.old.tenant);
  if (move.why === "reload" && tenant) rolloutMoveEnded(ctx, tenant, move, end);
  else if (move.why === "drain") drainMoveEnded(ctx, move, end);
  // An old one that had to go first has left its slot empty.
  if (tenant) wish(ctx, tenant);
}
