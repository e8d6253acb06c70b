/** What follows from a step: operations that waited for an end, tenants that want a successor, places that are free. */
import type { Context } from "./context.ts";
import { standing } from "./model.ts";
import { completeOperations } from "./operations.ts";
import { pump } from "./queue.ts";
import { hasWaiters } from "./waiters.ts";

/** Ends, since each round takes what the one before left, and a round ends no instance. */
export function settle(ctx: Context): void {
  while (ctx.ended.length || ctx.pumpWanted) {
    ctx.pumpWanted = false;
    for (const ref of ctx.ended.splice(0)) {
      completeOperations(ctx, ref.tenant, ref);
      if (hasWaiters(ctx.state, ref.tenant) && !standing(ctx.state, ref.tenant))
        ctx.state.queue.add(ref.tenant);
    }
    pump(ctx);
  }
}
