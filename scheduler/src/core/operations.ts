/** Stop, Restart and Delete: asked by a person or a control plane, answered when nothing of the tenant is left. */
import { ExitReason, type InstanceRef } from "@warren/proto/common";
import type { Context } from "./context.ts";
import { wish } from "./desire.ts";
import { ensure } from "./ensure.ts";
import { clearFailures } from "./failures.ts";
import { instancesOf, type Operation, serving, standingSlots } from "./model.ts";
import { unqueue } from "./queue.ts";
import { crowded, type Refusal } from "./refusal.ts";
import { abandonMove } from "./replace.ts";
import { settleOwed } from "./restart.ts";
import { cutShort } from "./rollout.ts";
import { beginStop, condemn } from "./stop.ts";
import { removeVolumesOf } from "./volume-calls.ts";
import { patchVolume, volumesOf } from "./volumes.ts";
import { refuseWaiters } from "./waiters.ts";
import { refusedByAll, wantedOf } from "./wanted.ts";

const reasons = {
  stop: ExitReason.KILLED,
  restart: ExitReason.RESTARTED,
  delete: ExitReason.KILLED,
} as const;

export function operate(
  ctx: Context,
  { call, kind, tenant: key, deadline, volumes }: Omit<Operation, "stopped">,
): void {
  const tenant = ctx.state.tenants.get(key);
  if (!tenant || (tenant.deleting && kind !== "delete")) {
    ctx.emit({ type: "refuse", call, refusal: { kind: "no-tenant", tenant: key } });
    return;
  }
  const names = [...volumesOf(ctx.state, key).keys()];
  if (kind === "delete" && names.length > 0 && volumes === undefined) {
    ctx.emit({ type: "refuse", call, refusal: { kind: "has-volumes", tenant: key, names } });
    return;
  }
  const pending = ctx.state.operations.get(key) ?? [];
  const refusal = crowded(pending, `operations on tenant ${key}`, ctx.config);
  if (refusal) {
    ctx.emit({ type: "refuse", call, refusal });
    return;
  }
  if (kind === "restart" && standingSlots(ctx.state, key) > 0) {
    const refused = refusedByAll(ctx, wantedOf(ctx, tenant, { revision: serving(tenant) }));
    if (refused) {
      ctx.emit({ type: "refuse", call, refusal: { kind: "no-node", tenant: key, refused, transient: true } });
      return;
    }
  }
  if (kind === "restart") clearFailures(tenant);
  // What was to be started by itself is not, until somebody uses it.
  tenant.scale = 0;
  // By a restart too: with successors coming before all are gone it would never be answered. Its ensure asks for them.
  tenant.paused = true;
  settleOwed(ctx, tenant);
  cutShort(ctx, tenant, `its instances were stopped (${kind})`);
  for (const move of [...(tenant.moves ?? [])]) abandonMove(ctx, move);
  unqueue(ctx, key);
  if (kind === "delete") {
    tenant.deleting = true;
    refuseWaiters(ctx, key, { kind: "no-tenant", tenant: key });
  }
  pending.push({ call, kind, tenant: key, deadline, volumes, stopped: [] });
  ctx.state.operations.set(key, pending);
  for (const instance of instancesOf(ctx.state, key)) {
    if (instance.lost) condemn(ctx, instance, reasons[kind]);
    else beginStop(ctx, instance, reasons[kind]);
  }
  completeOperations(ctx, key);
}

/** Answers the tenant's operations if nothing of it is left (but what a lost node may still hold). */
export function completeOperations(ctx: Context, key: string, ended?: InstanceRef): void {
  const pending = ctx.state.operations.get(key);
  if (!pending) return;
  if (ended) for (const operation of pending) operation.stopped.push(ended);
  if (instancesOf(ctx.state, key).some((instance) => !instance.lost)) return;
  const deletes = pending.filter(({ kind }) => kind === "delete");
  if (deletes.length) ctx.state.operations.set(key, deletes);
  else ctx.state.operations.delete(key);
  for (const { call, kind, deadline, stopped } of pending) {
    if (kind === "stop") ctx.emit({ type: "answer", call, answer: { kind: "stopped", stopped } });
    else if (kind === "restart") ensure(ctx, call, key, deadline);
  }
  persistDeletion(ctx, key, deletes);
}

const removesVolumes = (operations: readonly Operation[]): boolean =>
  operations.some(({ volumes }) => volumes === "remove");

/** Their callers go on waiting, each to its own deadline, while the store takes the deletion. */
function persistDeletion(ctx: Context, key: string, deletes: readonly Operation[]): void {
  if (deletes.length === 0) return;
  const underWay = deletes.some(({ persisting }) => persisting);
  for (const operation of deletes) operation.persisting = true;
  if (underWay) return;
  // Ahead of the tenant: a tenant made anew must not get what was to go, whenever this scheduler dies.
  if (removesVolumes(deletes)) {
    for (const name of volumesOf(ctx.state, key).keys())
      ctx.emit({ type: "persist", write: { kind: "volume-gone", tenant: key, name } });
  }
  ctx.emit({
    type: "persist",
    write: { kind: "tenant-gone", key },
    durable: { type: "delete-durable", tenant: key },
    failed: { type: "delete-failed", tenant: key, message: "the store did not take the deletion" },
  });
}

/** The deletion is persisted, or was not: those whose deadline has not passed are told. */
export function settleDeletes(ctx: Context, key: string, refusal?: Refusal): void {
  const pending = ctx.state.operations.get(key) ?? [];
  ctx.state.operations.delete(key);
  // Their bytes go from their nodes in their own time: the record is what gives them to a tenant.
  if (removesVolumes(pending)) {
    if (!refusal) removeVolumesOf(ctx, key);
    else for (const held of volumesOf(ctx.state, key).values()) patchVolume(ctx, held, {});
  }
  for (const { call, late } of pending) {
    if (late) continue;
    if (refusal) ctx.emit({ type: "refuse", call, refusal });
    else ctx.emit({ type: "answer", call, answer: { kind: "done" } });
  }
}

/** Callers whose deadline has passed are told so; a delete goes on all the same. */
export function expireOperations(ctx: Context): void {
  const { state, at } = ctx;
  for (const [key, pending] of state.operations) {
    if (pending.every(({ deadline, late }) => deadline > at.mono || late)) continue;
    const kept = pending.filter(({ deadline, kind }) => deadline > at.mono || kind === "delete");
    for (const operation of pending) {
      if (operation.deadline > at.mono || operation.late) continue;
      const { call, kind } = operation;
      const what =
        kind === "restart"
          ? "its instance is not gone yet; that goes on, and the next request starts it again"
          : `${kind} is not done yet; it goes on`;
      ctx.emit({ type: "refuse", call, refusal: { kind: "deadline", tenant: key, what } });
      operation.late = true;
    }
    const tenant = state.tenants.get(key);
    // What goes on of a restart is its stops; what its policy wants is started as they end.
    if (tenant && !kept.length && pending.every(({ kind }) => kind === "restart")) tenant.paused = false;
    if (kept.length) state.operations.set(key, kept);
    else state.operations.delete(key);
    if (tenant) wish(ctx, tenant); // somebody may have asked for it meanwhile
  }
}
