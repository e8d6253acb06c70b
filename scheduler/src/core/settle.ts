/** What follows from a step: operations that waited for an end, tenants that want a successor, places that are free. */
import type { Context } from "./context.ts";
import { enqueue, wish } from "./desire.ts";
import { drainProgress } from "./drain.ts";
import { completeOperations } from "./operations.ts";
import { pump } from "./queue.ts";
import { waitingMove } from "./replace.ts";
import { resumeRollout } from "./rollout.ts";

/** Ends, since each round takes what the one before left, and a round ends no instance that it has not commanded. */
export function settle(ctx: Context): void {
  while (ctx.ended.length || ctx.pumpWanted || ctx.retryWanted || ctx.roomOn.size) {
    ctx.pumpWanted = false;
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
