/**
 * Replacing an instance by another one in its slot: the successor is placed, and only once it is ready does the old one
 * drain and go (rule 2's one overlap). Where two must not run, the old one goes first. Reload, drain and rebalance all go
 * this way; each hears how it ended.
 */
import { type Exit, ExitReason } from "@warren/proto/common";
import { type Context, count } from "./context.ts";
import { enqueue } from "./desire.ts";
import { refusedText } from "./filters.ts";
import { type Instance, instancesOf, isLeaving, type Move, type MoveEnd, type Tenant } from "./model.ts";
import { beginStop } from "./stop.ts";
import { refusedByAll, wantedOf } from "./wanted.ts";

/** Asks for a successor. Nothing happens if one is on its way. */
export function requestMove(ctx: Context, tenant: Tenant, move: Move): void {
  if (ctx.state.moves.has(move.old.id)) return;
  enterMove(ctx, tenant, move);
  const old = ctx.state.instances.get(move.old.id);
  const refused =
    move.stopFirst && old
      ? refusedByAll(ctx, wantedOf(ctx, tenant, { revision: move.revision, move }))
      : undefined;
  if (refused) {
    endMove(ctx, move, {
      kind: "failed",
      message: `no node could take its successor: ${refusedText(refused)}`,
    });
  } else if (move.stopFirst && old) beginStop(ctx, old, ExitReason.REPLACED);
  else enqueue(ctx, tenant);
}

export function enterMove(ctx: Context, tenant: Tenant, move: Move): void {
  ctx.state.moves.set(move.old.id, move);
  tenant.moves ??= new Set();
  tenant.moves.add(move);
}

function leaveMove({ state }: Context, move: Move): void {
  state.moves.delete(move.old.id);
  if (move.successor !== undefined) state.successors.delete(move.successor);
  const tenant = state.tenants.get(move.old.tenant);
  tenant?.moves?.delete(move);
  if (tenant?.moves?.size === 0) tenant.moves = undefined;
}

/**
 * The tenant's next move that waits for a place: its successor is not placed, its old one is gone if it had to go first,
 * and nothing else is left in the slot: what the old one has replaced itself may still be finishing (rule 2). Those whose
 * slot stands empty come before others.
 */
export function waitingMove(ctx: Context, tenant: Tenant): Move | undefined {
  let next: Move | undefined;
  for (const move of tenant.moves ?? []) {
    if (move.successor !== undefined || isCrowded(ctx, tenant, move)) continue;
    const isEmpty = !ctx.state.instances.has(move.old.id);
    if (isEmpty) return move;
    if (!move.stopFirst) next ??= move;
  }
  return next;
}

function isCrowded({ state }: Context, { key }: Tenant, { old }: Move): boolean {
  return instancesOf(state, key).some(({ ref, lost }) => !lost && ref.slot === old.slot && ref.id !== old.id);
}

/** A successor was placed. */
export function placedFor(ctx: Context, move: Move, successor: Instance): void {
  move.successor = successor.ref.id;
  ctx.state.successors.set(successor.ref.id, move);
}

/** A successor serves: the old one may go. */
export function successorReady(ctx: Context, successor: Instance): void {
  const move = ctx.state.successors.get(successor.ref.id);
  if (!move) return;
  const old = ctx.state.instances.get(move.old.id);
  successor.replaces = undefined; // from now on its failing is the tenant's own
  if (old && !old.lost) beginStop(ctx, old, ExitReason.REPLACED);
  endMove(ctx, move, { kind: "moved", successor });
}

/** An instance is out of the books: whatever move it had a part in takes note. */
export function moveEnded(ctx: Context, instance: Instance, why: string, exit: Exit | undefined): void {
  const { state } = ctx;
  const asNew = state.successors.get(instance.ref.id);
  if (asNew) {
    successorEnded(ctx, asNew, why, exit, instance.ref.id);
    return;
  }
  const asOld = state.moves.get(instance.ref.id);
  if (!asOld || asOld.successor !== undefined) return; // its successor takes the slot, and says so when it is ready
  const tenant = state.tenants.get(asOld.old.tenant);
  if (asOld.stopFirst && tenant && !tenant.deleting) enqueue(ctx, tenant);
  else endMove(ctx, asOld, { kind: "moot" });
}

function successorEnded(ctx: Context, move: Move, why: string, exit: Exit | undefined, id?: string): void {
  if (move.successor !== undefined) ctx.state.successors.delete(move.successor);
  move.successor = undefined;
  const tenant = ctx.state.tenants.get(move.old.tenant);
  // A node that would not have it is no fault of its release: another one is tried, as long as there is time.
  const elsewhere = exit === undefined && ctx.at.mono < move.placeBy;
  if (tenant && elsewhere && !tenant.deleting) enqueue(ctx, tenant);
  else endMove(ctx, move, { kind: "failed", message: exit?.message || why, exit, instance: id });
}

/** Its node was given up: it is started anew like any other of that node, and as a successor somewhere else. */
export function movesGivenUp(ctx: Context, instance: Instance): void {
  const asNew = ctx.state.successors.get(instance.ref.id);
  if (asNew) successorEnded(ctx, asNew, "its node was lost before it was ready", undefined);
  const asOld = ctx.state.moves.get(instance.ref.id);
  if (asOld && asOld.successor === undefined) endMove(ctx, asOld, { kind: "moot" });
}

/** Gives moves up that have waited too long for a place, and drops those that are not wanted any more. */
export function expireMoves(ctx: Context): void {
  for (const move of [...ctx.state.moves.values()]) {
    if (move.successor !== undefined || ctx.at.mono < move.placeBy) continue;
    if (move.stopFirst && ctx.state.instances.has(move.old.id)) continue; // it waits for its old one to go
    const message = "no place was found for its successor in time";
    endMove(ctx, move, { kind: "failed", message });
  }
}

/** Nobody wants it any more; a successor on its way is stopped. */
export function abandonMove(ctx: Context, move: Move): void {
  leaveMove(ctx, move);
  const successor = move.successor === undefined ? undefined : ctx.state.instances.get(move.successor);
  if (successor && !isLeaving(successor)) beginStop(ctx, successor, ExitReason.SUPERSEDED);
}

/** Whoever wanted it hears of it when the step is settled (settle.ts). */
function endMove(ctx: Context, move: Move, end: MoveEnd): void {
  leaveMove(ctx, move);
  count(ctx, `moves_${end.kind}`);
  ctx.movesEnded.push({ move, end });
}
