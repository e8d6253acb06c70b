/**
 * Whether what has ended is started again. A restart is a new instance, by the scheduler: with it down nothing restarts,
 * and what runs goes on. A placement that is owed a successor stays in the log until that is placed, so that a new leader
 * finds it missing and owes it likewise.
 */
import { type Exit, ExitReason, RestartPolicy } from "@warren/proto/common";
import type { Context } from "./context.ts";
import { isFailure } from "./failures.ts";
import { type Instance, serving, standingSlots, type Tenant } from "./model.ts";

/**
 * An instance has left the books: its tenant is to have one less, unless its policy says otherwise.
 * @param exit how it ended; none if nobody knows
 * @returns whether it is owed a successor
 */
export function noteDeparture(ctx: Context, instance: Instance, exit: Exit | undefined): boolean {
  const tenant = ctx.state.tenants.get(instance.ref.tenant);
  if (!tenant || tenant.deleting || instance.lost) return false;
  // One that is being replaced has a successor, and one that was to replace it has not.
  if (ctx.state.moves.has(instance.ref.id) || instance.replaces !== undefined) return false;
  const standing = standingSlots(ctx.state, tenant.key);
  if (tenant.scale <= standing) return false;
  if (!startsAgain(serving(tenant).spec.restart, exit, instance.readySince !== undefined)) {
    tenant.scale = standing;
    return false;
  }
  tenant.owed ??= new Map();
  tenant.owed.set(instance.ref.id, instance.ref.node);
  return true;
}

function startsAgain(policy: RestartPolicy, exit: Exit | undefined, served: boolean): boolean {
  if (policy <= RestartPolicy.NEVER) return false;
  switch (exit?.reason) {
    case ExitReason.IDLE_KILLED:
    case ExitReason.LRU_EVICTED:
    case ExitReason.KILLED:
    case ExitReason.RESTARTED: // the call that asked for it starts it
    case ExitReason.SUPERSEDED:
      return false;
    case ExitReason.EXITED_CLEAN:
      return policy === RestartPolicy.ALWAYS || isFailure(exit, served);
    default:
      return true;
  }
}

/** What was owed has been given, or is wanted no more: the log may forget it. */
export function settleOwed(ctx: Context, tenant: Tenant): void {
  if (!tenant.owed) return;
  for (const id of tenant.owed.keys()) ctx.emit({ type: "persist", write: { kind: "placement-gone", id } });
  tenant.owed = undefined;
}

/** A node is forgotten: nothing in the log may name it, or a new leader would expect it. What is owed is owed all the same. */
export function forgetOwedOn(ctx: Context, node: string): void {
  for (const { owed } of ctx.state.tenants.values()) {
    if (!owed) continue;
    for (const [id, where] of owed) {
      if (where !== node) continue;
      owed.delete(id);
      ctx.emit({ type: "persist", write: { kind: "placement-gone", id } });
    }
  }
}
