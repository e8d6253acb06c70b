/**
 * Tenants that want an instance, or a successor for one: admitted below the cap, by priority and in turns; at the cap the
 * least recently used instance that is not busy makes room, and its place is taken only when it is gone (rule 1).
 */

import { needOf } from "./charge.ts";
import { type Context, count } from "./context.ts";
import { bounds, nextSlot } from "./desire.ts";
import { makeRoom, makeRoomFor, roomFilters } from "./evict.ts";
import { backingOff } from "./failures.ts";
import { refusing, type Wanted } from "./filters.ts";
import { holdersOf } from "./holders.ts";
import { placeOn } from "./life.ts";
import { instancesOf, type Move, type Revision, serving, type Tenant } from "./model.ts";
import { periodsOf } from "./periods.ts";
import { type PlaceResult, place } from "./place.ts";
import { placedFor, waitingMove } from "./replace.ts";
import { armTenant } from "./timing.ts";
import { wantedVolumes } from "./volumes.ts";
import { refuseUnserved } from "./waiters.ts";

/** After so many of those parked have been refused again, the others need not be asked. */
const enoughRefused = 8;
/** So many of those parked are looked at, at most. */
const mostParked = 256;
/** And on all nodes, which takes long where there are many, only so often. */
const retryMsPerNode = 0.05;

/** Admits whom it can, and makes room for the others. */
export function pump(ctx: Context): void {
  const { state, config, at } = ctx;
  // A store that refuses at once would be asked in a circle by whoever is to run without anybody's asking.
  const isHeld = at.mono < state.placeAgainAt;
  const roomOn = [...ctx.roomOn];
  ctx.roomOn.clear();
  if (!isHeld && (ctx.retryWanted || roomOn.length)) retryParked(ctx, isRetryDue(ctx) ? undefined : roomOn);
  ctx.retryWanted = false;
  while (!isHeld && state.live < config.maxConcurrent) {
    const key = state.queue.first();
    if (key === undefined) break;
    admit(ctx, key);
  }
  const excess = Math.max(0, state.live - config.maxConcurrent);
  if (excess > 0 || (state.queue.size > 0 && state.live >= config.maxConcurrent)) makeRoom(ctx, excess);
}

/** Whether those that no node could take are to be tried everywhere. */
function isRetryDue({ state, at, retryWanted }: Context): boolean {
  if (!retryWanted && at.mono - state.retriedAt < state.nodes.size * retryMsPerNode) return false;
  state.retriedAt = at.mono;
  return true;
}

/** Gives one tenant its turn. Whatever comes of it, the queue has moved on. */
function admit(ctx: Context, key: string): void {
  const { state } = ctx;
  const tenant = state.tenants.get(key);
  const next = tenant && nextOf(ctx, tenant);
  if (!tenant || !next) {
    state.queue.delete(key);
    return;
  }
  const { slot, revision, move } = next;
  const held = move ? undefined : backingOff(ctx, tenant);
  if (held) {
    state.queue.delete(key);
    refuseUnserved(ctx, key, held);
    armTenant(ctx, tenant, tenant.backoffUntil);
    return;
  }
  if (!move && tenant.unfitFor === state.joined) {
    refuseUnfit(ctx, tenant);
    return;
  }
  const wanted = wantedOf(ctx, tenant, next);
  const result = choose(ctx, wanted);
  if (result.kind === "placed") {
    const at = { slot, revision, replaces: move?.old.id };
    const instance = placeOn(ctx, tenant, result.node, result.why, at);
    if (move) placedFor(ctx, move, instance);
    if (nextOf(ctx, tenant)) state.queue.rotate(key);
    else state.queue.delete(key);
    return;
  }
  tenant.nowhere = result.refused;
  state.queue.delete(key);
  if (result.transient || move) {
    state.parked.add(key); // nodes come and go; its callers' deadlines bound the wait
    if (roomFilters.some((name) => result.refusals[name])) makeRoomFor(ctx, tenant, wanted);
    return;
  }
  tenant.unfitFor = state.joined;
  refuseUnfit(ctx, tenant);
}

/** No node is of a kind that could take it. */
function refuseUnfit(ctx: Context, { key, nowhere = {} }: Tenant): void {
  ctx.state.queue.delete(key);
  count(ctx, "refused_no_node");
  refuseUnserved(ctx, key, { kind: "no-node", tenant: key, refused: nowhere, transient: false });
}

interface Next {
  readonly slot: number;
  readonly revision: Revision;
  readonly move?: Move;
}

/** What the tenant wants next: an instance, or a successor for one. */
function nextOf(ctx: Context, tenant: Tenant): Next | undefined {
  const slot = nextSlot(ctx, tenant);
  if (slot !== undefined) return { slot, revision: serving(tenant) };
  const move = waitingMove(ctx, tenant);
  return move && { slot: move.old.slot, revision: move.revision, move };
}

function wantedOf(ctx: Context, tenant: Tenant, { revision: { spec }, move }: Next): Wanted {
  const { state, config, at } = ctx;
  return {
    spec,
    need: needOf(tenant, config),
    avoided: tenant.avoid,
    perNode: bounds(spec).max > 1 ? countByNode(ctx, tenant.key, move) : undefined,
    leaves: move && move.why !== "reload" ? move.old.node : undefined,
    ...wantedVolumes(state, tenant.key, spec),
    mono: at.mono,
    lateMs: periodsOf(config, state.nodes.size).late,
    config,
  };
}

function choose({ state, random }: Context, wanted: Wanted): PlaceResult {
  const { source } = wanted.spec;
  const holders = source.case === "release" ? holdersOf(state, source.value) : [];
  const result = place({ ...wanted, roster: state.roster, holders, random });
  for (const [name, n] of Object.entries(result.refusals)) {
    state.refusals[name] = (state.refusals[name] ?? 0) + n;
  }
  return result;
}

/** What it has on each node; the one that is being replaced makes room by itself. */
function countByNode(ctx: Context, tenant: string, move: Move | undefined): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { ref, lost } of instancesOf(ctx.state, tenant)) {
    if (!lost && ref.id !== move?.old.id) counts.set(ref.node, (counts.get(ref.node) ?? 0) + 1);
  }
  return counts;
}

/**
 * Nodes came, or have room again: those that no node could take are asked anew, the longest waiting first; after whoever
 * stands in the queue with a higher priority.
 * @param roomOn only those that one of these nodes could take
 */
function retryParked(ctx: Context, roomOn: readonly string[] | undefined): void {
  const { state, config } = ctx;
  let left = Math.min(state.parked.size, mostParked); // those refused again come last, and are not asked twice
  let refused = 0;
  for (const key of state.parked) {
    if (left-- === 0 || refused >= enoughRefused) return;
    if (roomOn && !mayTake(ctx, roomOn, key)) continue;
    const tenant = state.tenants.get(key);
    const priority = tenant ? serving(tenant).spec.priority : 0;
    for (let first = state.queue.first(); first !== undefined; first = state.queue.first()) {
      if (state.live >= config.maxConcurrent || state.queue.priority <= priority) break;
      admit(ctx, first);
    }
    if (state.live >= config.maxConcurrent) return;
    state.parked.delete(key);
    if (!tenant) continue;
    admit(ctx, key);
    if (state.parked.has(key)) refused++;
  }
}

function mayTake(ctx: Context, names: readonly string[], key: string): boolean {
  const tenant = ctx.state.tenants.get(key);
  const next = tenant && nextOf(ctx, tenant);
  if (!tenant || !next) return true; // it leaves the list
  const wanted = wantedOf(ctx, tenant, next);
  return names.some((name) => {
    const node = ctx.state.nodes.get(name);
    return node !== undefined && refusing(node, wanted) === undefined;
  });
}

/** Nobody waits for it any more, and nothing else wants it. */
export function unqueue(ctx: Context, key: string): void {
  const tenant = ctx.state.tenants.get(key);
  if (tenant && nextOf(ctx, tenant)) return;
  ctx.state.queue.delete(key);
  ctx.state.parked.delete(key);
}

/** Whether the tenant stands in the queue or is parked. */
export function isQueued({ state }: Context, key: string): boolean {
  return state.queue.has(key) || state.parked.has(key);
}
