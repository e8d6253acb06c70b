/**
 * Bringing a tenant's instances to another revision of its spec, batch by batch, each only once its successor is ready.
 * If one does not become ready, those replaced so far are given back to the revision before, and that serves on: the old
 * instances that were not touched are left alone.
 */
import { create } from "@bufbuild/protobuf";
import { isAtMostOne } from "@warren/common/tenant-files";
import { type InstanceRef, RolloutEndedSchema, RolloutSchema, RolloutState } from "@warren/proto/common";
import { type Context, count } from "./context.ts";
import { wish } from "./desire.ts";
import { takeLate } from "./late.ts";
import {
  type Move,
  type MoveEnd,
  type Revision,
  type Rollout,
  serving,
  standingOf,
  type Tenant,
} from "./model.ts";
import { crowded, type Refusal } from "./refusal.ts";
import { abandonMove, requestMove } from "./replace.ts";
import { persistTenant } from "./tenant-record.ts";
import { armTenant } from "./timing.ts";

export function isRunning(rollout: Rollout | undefined): rollout is Rollout {
  return rollout?.state === RolloutState.RUNNING || rollout?.state === RolloutState.ROLLING_BACK;
}

/** Whether an instance of that version runs what the revision asks for. 0 is of a scheduler that did not say. */
export function isOf(version: bigint, { since }: Revision): boolean {
  return version === 0n || Number(version) >= since;
}

/**
 * @param all those that are of the newest revision already as well: somebody asked for a reload
 * @param from what serves until now
 */
export function startRollout(
  ctx: Context,
  tenant: Tenant,
  { all, from, call, deadline }: { all: boolean; from: Revision; call?: string; deadline?: number },
): void {
  const to = tenant.newest;
  const calls = call === undefined ? [] : [{ call, deadline: deadline ?? Number.POSITIVE_INFINITY }];
  cutShort(ctx, tenant, `version ${to.version} was applied meanwhile, and takes its place`);
  // A successor that is on its way for another reason would get one of its own, beside the one that it replaces.
  for (const move of [...(tenant.moves ?? [])]) abandonMove(ctx, move);
  const standing = standingOf(ctx.state, tenant.key);
  const hasSuccessor = ({ slot, generation }: InstanceRef) =>
    standing.some(({ ref }) => ref.slot === slot && ref.generation > generation);
  // Of which its node has not spoken, nobody knows what it is replaced beside: its turn comes then (resumeRollout).
  const todo = standing
    .filter(({ phase }) => phase.kind !== "unconfirmed")
    .filter(({ ref }) => (all || !isOf(ref.specVersion, to)) && !hasSuccessor(ref))
    .map(({ ref }) => ref.id);
  const wasRejected = tenant.rejected;
  tenant.rejected = false;
  if (wasRejected) persistTenant(ctx, tenant); // else a new leader would serve the version before
  tenant.rollout = {
    state: RolloutState.RUNNING,
    to,
    from,
    todo: new Set(todo),
    moving: new Set(),
    total: todo.length,
    replaced: 0,
    message: "",
    calls,
    made: [],
  };
  count(ctx, "rollouts");
  advance(ctx, tenant, tenant.rollout);
  wish(ctx, tenant);
}

/** What was being brought or rolled back has no more say; its callers are told why. */
export function cutShort(ctx: Context, tenant: Tenant, message: string): void {
  const { rollout } = tenant;
  if (!isRunning(rollout)) return;
  rollout.state = RolloutState.ROLLED_BACK;
  rollout.message = message;
  abandonMoves(ctx, tenant, rollout);
  const refusal: Refusal = { kind: "rolled-back", tenant: tenant.key, message };
  for (const { call } of rollout.calls.splice(0)) ctx.emit({ type: "refuse", call, refusal });
}

function abandonMoves(ctx: Context, tenant: Tenant, rollout: Rollout): void {
  for (const id of rollout.moving) {
    const move = ctx.state.moves.get(id);
    if (move?.why === "reload") abandonMove(ctx, move);
  }
  rollout.moving.clear();
  rollout.todo.clear();
  wish(ctx, tenant);
}

/** Starts as many replacements as may be under way at a time, or ends. */
export function advance(ctx: Context, tenant: Tenant, rollout: Rollout): void {
  if (tenant.rollout !== rollout || !isRunning(rollout)) return;
  const target = rollout.state === RolloutState.ROLLING_BACK ? rollout.from : rollout.to;
  const { reload } = target.spec;
  const batch = Math.max(1, reload?.batch ?? 0);
  for (const id of rollout.todo) {
    if (rollout.moving.size >= batch) return;
    rollout.todo.delete(id);
    const old = ctx.state.instances.get(id);
    // It went by itself: what is started in its stead is of the right revision.
    if (!old || old.lost || ctx.state.moves.has(id)) continue;
    rollout.moving.add(id);
    requestMove(ctx, tenant, {
      old: old.ref,
      why: "reload",
      revision: target,
      placeBy: ctx.at.mono + ctx.config.moveMs,
      stopFirst: isAtMostOne(target.spec) || (reload?.stopFirst ?? false),
    });
  }
  if (rollout.moving.size === 0) finish(ctx, tenant, rollout);
}

/** How one of its replacements ended. */
export function rolloutMoveEnded(ctx: Context, tenant: Tenant, move: Move, end: MoveEnd): void {
  const { rollout } = tenant;
  if (!rollout?.moving.delete(move.old.id) || !isRunning(rollout)) return;
  if (end.kind === "moved") {
    rollout.replaced++;
    rollout.made.push(end.successor.ref);
  }
  if (end.kind === "failed") fail(ctx, tenant, rollout, end);
  else advance(ctx, tenant, rollout);
}

function fail(
  ctx: Context,
  tenant: Tenant,
  rollout: Rollout,
  { message, exit, instance }: Extract<MoveEnd, { kind: "failed" }>,
): void {
  if (rollout.state === RolloutState.ROLLING_BACK) {
    // Even the one before does not start (no place, or broken by now): what there is serves, the rest is as if cold.
    advance(ctx, tenant, rollout);
    return;
  }
  rollout.state = RolloutState.ROLLING_BACK;
  rollout.message = message;
  rollout.exit = exit;
  rollout.failed = exit && instance;
  abandonMoves(ctx, tenant, rollout);
  const { to, from } = rollout;
  if (!exit) {
    // No place was found: that says nothing of the new version. What is left is tried again later.
    armTenant(ctx, tenant, ctx.at.mono + ctx.config.moveMs);
  } else if (from.version !== to.version) {
    tenant.rejected = true;
    persistTenant(ctx, tenant);
    for (const { ref } of standingOf(ctx.state, tenant.key)) {
      if (to.since > from.since && Number(ref.specVersion) >= to.since) rollout.todo.add(ref.id);
    }
  }
  count(ctx, "rollouts_failed");
  advance(ctx, tenant, rollout);
  // Where the old one had to go first, the revision before is started again.
  wish(ctx, tenant);
}

function finish(ctx: Context, tenant: Tenant, rollout: Rollout): void {
  const failed = rollout.state === RolloutState.ROLLING_BACK;
  rollout.state = failed ? RolloutState.ROLLED_BACK : RolloutState.DONE;
  for (const { call } of rollout.calls.splice(0)) {
    if (failed) ctx.emit({ type: "refuse", call, refusal: refusalOf(tenant, rollout) });
    else ctx.emit({ type: "answer", call, answer: { kind: "reloaded", instances: rollout.made } });
  }
  if (!failed && standingOf(ctx.state, tenant.key).some(({ ref }) => !isOf(ref.specVersion, rollout.to))) {
    armTenant(ctx, tenant, ctx.at.mono + ctx.config.moveMs); // those that could not be replaced yet
  }
  if (rollout.total === 0) return;
  ctx.emit({
    type: "event",
    tenant: tenant.key,
    payload: {
      case: "rollout",
      value: create(RolloutEndedSchema, {
        tenant: tenant.key,
        rollout: viewOf(rollout),
        exit: rollout.exit,
      }),
    },
  });
}

function refusalOf(tenant: Tenant, { message, exit, to, from }: Rollout): Refusal {
  return {
    kind: "rolled-back",
    tenant: tenant.key,
    message: `version ${to.version} did not become ready (${message || "it ended"}): version ${from.version} serves on`,
    exit,
  };
}

export function viewOf(rollout: Rollout) {
  const { state, to, from, replaced, total, message, exit, failed } = rollout;
  return create(RolloutSchema, {
    state,
    version: BigInt(to.version),
    previousVersion: BigInt(from.version),
    replaced,
    total,
    message,
    failedInstance: failed,
    lastOutput: exit?.lastOutput,
  });
}

/** Reload: somebody wants all instances to be of the newest spec, and new. */
export function reload(ctx: Context, call: string, key: string, deadline: number): void {
  const tenant = ctx.state.tenants.get(key);
  if (!tenant || tenant.deleting) {
    ctx.emit({ type: "refuse", call, refusal: { kind: "no-tenant", tenant: key } });
    return;
  }
  const from = serving(tenant);
  if (isRunning(tenant.rollout) && tenant.rollout.to.version === tenant.newest.version) {
    const refusal = crowded(tenant.rollout.calls, `reloads of tenant ${key}`, ctx.config);
    if (refusal) ctx.emit({ type: "refuse", call, refusal });
    else tenant.rollout.calls.push({ call, deadline }); // it is on its way already
    return;
  }
  startRollout(ctx, tenant, { all: true, from, call, deadline });
}

/** Instances of an older revision were found by a new leader: what the one before it had begun goes on. */
export function resumeRollout(ctx: Context, tenant: Tenant): void {
  if (tenant.deleting || isRunning(tenant.rollout)) return;
  const target = serving(tenant);
  const standing = standingOf(ctx.state, tenant.key);
  const isStale = standing.some(({ ref }) => !isOf(ref.specVersion, target));
  if (
    !isStale ||
    tenant.rejected ||
    tenant.moves ||
    standing.some(({ phase }) => phase.kind === "unconfirmed")
  )
    return;
  startRollout(ctx, tenant, { all: false, from: tenant.previous ?? target });
}

/** Callers of Reload whose deadline has passed. */
export function expireReloads(ctx: Context, tenant: Tenant): void {
  const { rollout } = tenant;
  if (!rollout?.calls.length) return;
  const what = `its reload is not done yet (${rollout.replaced} of ${rollout.total} instances are replaced); it goes on`;
  for (const { call } of takeLate(ctx, rollout.calls)) {
    ctx.emit({ type: "refuse", call, refusal: { kind: "deadline", tenant: tenant.key, what } });
  }
}
