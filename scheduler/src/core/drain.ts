/**
 * Emptying a node: what is used is moved, its successor ready first; what sleeps or idles is stopped, since the next
 * request starts it elsewhere. What cannot be moved stays until the drain's deadline, and is stopped then.
 */
import { isKeptAwake } from "@warren/common/spec-check";
import { hasVolumes, isAtMostOne } from "@warren/common/tenant-files";
import { ExitReason, NodeChange } from "@warren/proto/common";
import { backupTimes, mayBackUp, startBackup } from "./backups.ts";
import type { Context } from "./context.ts";
import { setCordon } from "./cordon.ts";
import { takeLate } from "./late.ts";
import {
  type HeldVolume,
  type Instance,
  inFlight,
  instancesOn,
  type Move,
  type MoveEnd,
  type Node,
  type NodeDrain,
  specOf,
} from "./model.ts";
import { nodeChanged } from "./node-events.ts";
import { beginIdleStop, mayLeave } from "./quiesce.ts";
import { crowded } from "./refusal.ts";
import { requestMove } from "./replace.ts";
import { isAsleep, isNeeded } from "./sleep.ts";
import { beginStop } from "./stop.ts";
import { allVolumes } from "./volumes.ts";

/** Used within so many ms, an instance is moved rather than stopped. */
const inUseMs = 60_000;
/** Until what could not be moved or stopped is tried again, in ms. */
const againMs = 1_000;

export function drainNode(
  ctx: Context,
  { call, node: name, deadline, until }: { call: string; node: string; deadline: number; until: number },
): void {
  const node = ctx.state.nodes.get(name);
  if (!node) {
    ctx.emit({ type: "refuse", call, refusal: { kind: "no-node-of-name", node: name } });
    return;
  }
  const refusal = crowded(node.draining?.calls ?? [], `drains of node ${name}`, ctx.config);
  if (refusal) {
    ctx.emit({ type: "refuse", call, refusal });
    return;
  }
  setCordon(ctx, node, true);
  if (node.draining) {
    node.draining.calls.push({ call, deadline });
    node.draining.until = Math.min(node.draining.until, until);
  } else
    node.draining = {
      calls: [{ call, deadline }],
      until,
      moved: 0,
      stopped: 0,
      againAt: 0,
      saving: new Set(),
      saved: new Set(),
    };
  stepDrain(ctx, node);
}

/** Whoever uncordons a node wants it used again. */
export function cancelDrain(ctx: Context, node: Node): void {
  const { draining } = node;
  if (!draining) return;
  node.draining = undefined;
  for (const { call } of draining.calls) {
    const message = `node ${node.name} was uncordoned: its drain is given up`;
    ctx.emit({ type: "refuse", call, refusal: { kind: "drain-cancelled", message } });
  }
}

/** Moves and stops what it may, or ends the drain. */
export function stepDrain(ctx: Context, node: Node): void {
  const { draining } = node;
  if (!draining) return;
  const here = instancesOn(ctx.state, node).filter(({ lost }) => !lost);
  if (here.length === 0) {
    saveVolumes(ctx, node, draining);
    const unsaved = unsavedOf(ctx, node, draining);
    if (unsaved.length === 0 || ctx.at.mono >= draining.until) finish(ctx, node, unsaved);
    return;
  }
  const over = ctx.at.mono >= draining.until;
  if (!over && ctx.at.mono < draining.againAt) return;
  draining.againAt = ctx.at.mono + againMs;
  let moving = 0;
  for (const { ref } of here) if (ctx.state.moves.has(ref.id)) moving++;
  for (const instance of here) {
    if (over) {
      beginStop(ctx, instance, ExitReason.KILLED);
      continue;
    }
    if (instance.phase.kind !== "ready" || ctx.state.moves.has(instance.ref.id)) continue;
    if (!isWanted(ctx, instance)) {
      if (mayLeave(ctx, instance, 0)) beginIdleStop(ctx, instance, ExitReason.IDLE_KILLED);
      continue;
    }
    const tenant = ctx.state.tenants.get(instance.ref.tenant);
    if (!tenant || moving >= ctx.config.drainAtOnce) continue;
    const spec = specOf(tenant, instance.ref);
    if (hasVolumes(spec)) {
      // It runs nowhere else: the sooner it stops, the sooner its files are safe.
      beginStop(ctx, instance, ExitReason.KILLED);
      continue;
    }
    moving++;
    requestMove(ctx, tenant, {
      old: instance.ref,
      why: "drain",
      revision: revisionOf(tenant, instance),
      placeBy: Math.min(draining.until, ctx.at.mono + ctx.config.moveMs),
      stopFirst: isAtMostOne(spec),
    });
  }
}

/** Volumes on it that are to be backed up, and are not yet as their last instance left them. */
function unsavedOf({ state }: Context, node: Node, { saved }: NodeDrain): HeldVolume[] {
  return [...allVolumes(state)].filter(
    (held) =>
      held.record.node === node.name &&
      held.record.made &&
      !saved.has(held.record.id) &&
      backupTimes(state, held) !== undefined,
  );
}

/** Begins their backups, now that nothing writes to them; as many at once as the node takes. */
function saveVolumes(ctx: Context, node: Node, draining: NodeDrain): void {
  if (!node.confirmed || node.lost) return;
  for (const held of unsavedOf(ctx, node, draining)) {
    if (!mayBackUp(ctx, held, node)) continue;
    draining.saving.add(held.record.id);
    startBackup(ctx, held, node);
  }
}

/** A backup has ended. One that was begun while something ran there is not the last. */
export function volumeSaved(ctx: Context, { record, backupError }: HeldVolume): void {
  const node = ctx.state.nodes.get(record.node);
  if (!node?.draining) return;
  const { saving, saved } = node.draining;
  if (saving.delete(record.id) && backupError === undefined) saved.add(record.id);
  stepDrain(ctx, node);
}

function revisionOf(tenant: Parameters<typeof specOf>[0], instance: Instance) {
  const { newest, previous } = tenant;
  return specOf(tenant, instance.ref) === newest.spec || !previous ? newest : previous;
}

/** Whether somebody would miss it if it had to be started anew. */
function isWanted(ctx: Context, instance: Instance): boolean {
  if (isNeeded(ctx, instance)) return true;
  const tenant = ctx.state.tenants.get(instance.ref.tenant);
  if (tenant && isKeptAwake(specOf(tenant, instance.ref))) return true;
  if (inFlight(ctx.state, instance, ctx.at, ctx.config) > 0) return true;
  return !isAsleep(instance) && ctx.at.mono - instance.lastUsed < inUseMs;
}

/** One of its instances has a successor, or could not get one. */
export function drainMoveEnded(ctx: Context, move: Move, end: MoveEnd): void {
  const draining = ctx.state.nodes.get(move.old.node)?.draining;
  if (draining && end.kind === "moved") draining.moved++;
}

/** An instance is gone from a node; one that had no successor was stopped. */
export function drainProgress(ctx: Context, nodeName: string): void {
  const node = ctx.state.nodes.get(nodeName);
  if (!node?.draining) return;
  node.draining.stopped++;
  node.draining.againAt = 0;
  stepDrain(ctx, node);
}

function finish(ctx: Context, node: Node, volumes: readonly HeldVolume[]): void {
  const { draining } = node;
  if (!draining) return;
  node.draining = undefined;
  const moved = draining.moved;
  const stopped = Math.max(0, draining.stopped - moved);
  const unsaved = volumes.map(({ record: { tenant, name } }) => `${tenant}/${name}`);
  for (const { call } of draining.calls) {
    ctx.emit({ type: "answer", call, answer: { kind: "drained", moved, stopped, unsaved } });
  }
  const without = unsaved.length > 0 ? `; not backed up: ${unsaved.join(", ")}` : "";
  const message = `${moved} instances were moved, ${stopped} stopped${without}`;
  nodeChanged(ctx, node.name, NodeChange.DRAINED, message);
}

/** Callers whose own deadline has passed; the drain goes on. */
export function expireDrainCalls(ctx: Context, node: Node): void {
  const { draining } = node;
  if (!draining) return;
  const what = `node ${node.name} is not empty yet: ${node.placed} instances are left; its drain goes on`;
  for (const { call } of takeLate(ctx, draining.calls)) {
    ctx.emit({ type: "refuse", call, refusal: { kind: "late", what } });
  }
}
