/**
 * Nodes join, report, are late, get lost and come back. An agent's inventory is taken after it has fenced itself to
 * this epoch, so what is not in it cannot come to life any more: only that frees a place.
 */
import { create } from "@bufbuild/protobuf";
import { isAtMostOne } from "@warren/common/tenant-files";
import { fromDuration } from "@warren/common/time";
import {
  ExitReason,
  ExitSchema,
  InstanceState,
  NodeChange,
  type Instance as ReportedInstance,
  RestartPolicy,
} from "@warren/proto/common";
import { noNeed, observeUsage } from "./charge.ts";
import { type Context, count } from "./context.ts";
import { wish } from "./desire.ts";
import { cancelDrain } from "./drain.ts";
import { complete, routable, withdraw } from "./endpoints.ts";
import type { Input, JoinInfo, NodeRecord } from "./inputs.ts";
import { becameReady, commandStop, gone, observe, stopsByItself, vanish } from "./life.ts";
import {
  type Instance,
  instancesOf,
  instancesOn,
  isLeaving,
  isOfNamesake,
  type Node,
  serving,
  specOf,
  standingSlots,
} from "./model.ts";
import { nodeChanged } from "./node-events.ts";
import { completeOperations } from "./operations.ts";
import { periodsOf } from "./periods.ts";
import { enter, giveUp, takeBack, track } from "./phases.ts";
import { easeCpu, relieve } from "./pressure.ts";
import { goneWithNode } from "./proven-lost.ts";
import { enterMove, movesGivenUp, placedFor } from "./replace.ts";
import { forgetOwedOn } from "./restart.ts";
import { resumeRollout } from "./rollout.ts";
import { doubt, setMode } from "./sleep.ts";
import { beginStop } from "./stop.ts";
import { armInstance } from "./timing.ts";
import { displacedBy, displaceVolumes, noteCopies, noteStorage } from "./volumes.ts";

export function expected(ctx: Context, record: NodeRecord): Node {
  const node: Node = {
    name: record.name,
    agentUrl: record.agentUrl,
    bootId: record.bootId,
    incarnation: "",
    version: "",
    isolation: [],
    labels: {},
    allowDirectories: false,
    cordoned: record.cordoned,
    confirmed: false,
    lost: false,
    lastReport: ctx.at.mono,
    lastReportWall: 0,
    instances: new Set(),
    placed: 0,
    starting: 0,
    charged: noNeed,
    relieveAt: 0,
    easeAt: 0,
  };
  ctx.state.nodes.set(node.name, node);
  ctx.state.roster.push(node);
  return node;
}

export function join(ctx: Context, call: string, info: JoinInfo): void {
  const { state, at, config } = ctx;
  const known = state.nodes.get(info.node);
  const rebooted = known !== undefined && known.bootId !== info.bootId;
  if (
    known?.incarnation &&
    rebooted &&
    at.mono - known.lastReport < periodsOf(config, state.nodes.size).late
  ) {
    ctx.emit({
      type: "refuse",
      call,
      refusal: {
        kind: "duplicate-node",
        node: info.node,
        message: `a node named ${info.node} with another boot id reported ${Math.round(at.mono - known.lastReport)} ms ago: give this one another name, or stop the other`,
      },
    });
    return;
  }
  const record = {
    name: info.node,
    agentUrl: info.agentUrl,
    bootId: info.bootId,
    cordoned: known?.cordoned ?? false,
  };
  const node = known ?? expected(ctx, record);
  if (rebooted) {
    // Another boot proves that no process of before is alive.
    for (const nodes of state.holders.values()) nodes.delete(node.name);
    for (const instance of instancesOn(state, node)) {
      if (instance.phase.kind !== "persisting") goneWithNode(ctx, instance, "its node was started anew");
    }
  }
  if (!known || rebooted || known.agentUrl !== info.agentUrl) {
    ctx.emit({ type: "persist", write: { kind: "node", record } });
  }
  Object.assign(node, {
    agentUrl: info.agentUrl,
    bootId: info.bootId,
    incarnation: info.incarnation,
    version: info.version,
    capacity: info.capacity,
    isolation: info.isolation,
    host: info.host,
    labels: info.labels,
    allowDirectories: info.allowDirectories,
    confirmed: false,
    pressure: undefined,
    lastReport: at.mono,
    lastReportWall: at.wall,
  });
  ctx.emit({ type: "answer", call, answer: { kind: "done" } });
}

export function report(ctx: Context, input: Extract<Input, { type: "report" }>): void {
  const { state, at } = ctx;
  const node = state.nodes.get(input.node);
  const stranger =
    node?.incarnation !== input.incarnation ||
    input.fencedEpoch !== state.epoch ||
    (!node.confirmed && !input.inventory) ||
    (node.lost && !input.inventory);
  if (!node || stranger) {
    // A lost node joins again, so that its inventory settles what became of its instances. What an agent process says that
    // is not the node's any more, or is not yet, is none of the one that is.
    if (node?.incarnation === input.incarnation) node.confirmed = false;
    ctx.emit({
      type: "refuse",
      call: input.call,
      refusal: {
        kind: "join-again",
        message: `this scheduler does not know node ${input.node} as it is now: join again`,
      },
    });
    return;
  }
  node.lastReport = at.mono;
  node.lastReportWall = at.wall;
  if (input.pressure) node.pressure = input.pressure;
  for (const { instance: ref, usage } of input.usages) {
    const instance = ref && state.instances.get(ref.id);
    if (instance?.ref.node === node.name && usage) observeUsage(ctx, instance, usage);
  }
  for (const transition of input.transitions) {
    const instance = transition.instance && state.instances.get(transition.instance.id);
    if (!instance || instance.ref.node !== node.name) continue;
    instance.asked = undefined;
    if (transition.usage) observeUsage(ctx, instance, transition.usage);
    if (transition.pid) instance.pid = transition.pid;
    if (transition.to >= (instance.told?.state ?? 0)) instance.told = { state: transition.to, at: at.mono };
    if (transition.to === InstanceState.EXITED) {
      gone(ctx, instance, transition.exit ?? create(ExitSchema, {}));
    } else if (transition.to === InstanceState.READY && transition.endpoint) {
      // From READY it is a change of mode: no start, and `after` is how long the mode before had lasted.
      if (transition.from !== InstanceState.READY) {
        instance.startMs = fromDuration(transition.after, instance.startMs);
      }
      becameReady(ctx, instance, transition.endpoint, { mode: transition.toMode, wakes: transition.wakes });
      setMode(ctx, instance, transition.toMode, transition.wakes);
    } else if (transition.to === InstanceState.DRAINING || transition.to === InstanceState.STOPPING) {
      stopsByItself(ctx, instance);
    }
  }
  if (input.copies) noteCopies(ctx, node, input.copies);
  for (const storage of input.storages ?? []) noteStorage(ctx, node, storage);
  if (input.inventory) confirm(ctx, node, input.inventory);
  if (input.pressure) {
    relieve(ctx, node);
    easeCpu(ctx, node);
  }
  ctx.emit({ type: "answer", call: input.call, answer: { kind: "done" } });
}

/** The node has said which instances it has: all others of it are gone for good. */
function confirm(ctx: Context, node: Node, inventory: readonly ReportedInstance[]): void {
  const { state } = ctx;
  const wasConfirmed = node.confirmed;
  const wasUp = wasConfirmed && !node.lost;
  node.confirmed = true;
  node.lost = false;
  const seen = new Set<string>();
  for (const reported of inventory) {
    if (!reported.ref) continue;
    seen.add(reported.ref.id);
    const known = state.instances.get(reported.ref.id);
    if (!known) {
      // Nobody here placed it (any more): it goes, and holds a place until it is gone.
      const stray = track(ctx, reported.ref, { kind: "unconfirmed" });
      commandStop(ctx, stray, ExitReason.SUPERSEDED);
    } else if (known.ref.node === node.name) {
      reconcile(ctx, known, reported);
    }
  }
  // One that was sent again, or comes late, is no proof: what was started since is not in it.
  if (!wasConfirmed) buryMissing(ctx, node, seen);
  complete(ctx, node);
  if (!wasUp)
    nodeChanged(
      ctx,
      node.name,
      NodeChange.UP,
      `joined as ${node.agentUrl} with ${inventory.length} instances`,
    );
  ctx.roomOn.add(node.name);
  state.joined++;
}

function buryMissing(ctx: Context, node: Node, seen: ReadonlySet<string>): void {
  for (const instance of instancesOn(ctx.state, node)) {
    const { ref, phase, asked } = instance;
    if (seen.has(ref.id) || phase.kind === "persisting") continue;
    // Its start may still be on its way to this agent: the answer to that, or to its stop, will tell.
    if (asked !== undefined && asked === node.incarnation) continue;
    vanish(ctx, instance, "its node does not have it");
  }
}

function reconcile(ctx: Context, instance: Instance, reported: ReportedInstance): void {
  instance.asked = undefined;
  const tenant = ctx.state.tenants.get(instance.ref.tenant);
  if (instance.lost) {
    // Of two, the higher generation wins (rule 2); and the cap holds for those who return, too (rule 1).
    const replaced = ofItsSlot(ctx, instance).some((other) => !other.lost && other !== instance);
    const { phase } = instance;
    const ending = phase.kind === "draining" || phase.kind === "stopping" ? phase.reason : undefined;
    const over = ctx.state.live >= ctx.config.maxConcurrent;
    takeBack(ctx, instance);
    enter(ctx, instance, { kind: "unconfirmed" });
    if (replaced || over || ending !== undefined) {
      commandStop(ctx, instance, ending ?? ExitReason.SUPERSEDED);
      return;
    }
  }
  switch (instance.phase.kind) {
    case "unconfirmed": {
      const isOurs = tenant && !tenant.deleting && !isOfNamesake(tenant, instance.ref);
      if (!isOurs || reported.state >= InstanceState.DRAINING) {
        commandStop(ctx, instance, ExitReason.KILLED);
        return;
      }
      if (reported.state < InstanceState.READY) {
        const until = ctx.at.mono + 2 * ctx.config.readinessMs;
        enter(ctx, instance, { kind: "starting", since: ctx.at.mono, until });
        armInstance(ctx, instance, until);
      }
      break;
    }
    case "stopping":
      instance.phase.asked = false; // the agent that was asked may have died with the question
      instance.phase.askAgainAt = ctx.at.mono;
      armInstance(ctx, instance, ctx.at.mono);
      break;
    case "ready":
      // Likewise a freeze or a thaw: what it does now is what the inventory says, unless the freeze is still on its way.
      if (instance.phase.command) {
        if (instance.phase.command.kind === "freeze") doubt(ctx, instance);
        enter(ctx, instance, { kind: "ready" });
        armInstance(ctx, instance, ctx.at.mono);
      }
      break;
  }
  observe(ctx, instance, reported);
  if (!ctx.state.instances.has(instance.ref.id)) return;
  setMode(ctx, instance, reported.mode, reported.wakes);
  keepNewest(ctx, instance);
  if (tenant) resumeRollout(ctx, tenant);
}

function ofItsSlot(ctx: Context, { ref }: Instance): Instance[] {
  return instancesOf(ctx.state, ref.tenant).filter((other) => other.ref.slot === ref.slot);
}

/**
 * Of two instances of one slot the higher generation wins (rule 2), once it serves. There are two when a lost node's
 * tenant was started elsewhere, or when the scheduler before this one died while it replaced one; this one learns that
 * only from the inventories.
 */
function keepNewest(ctx: Context, instance: Instance): void {
  const alive = ofItsSlot(ctx, instance).filter((other) => !other.lost && !isLeaving(other));
  if (alive.length < 2) return;
  alive.sort((a, b) => (a.ref.generation > b.ref.generation ? -1 : 1));
  const [newest, ...older] = alive as [Instance, ...Instance[]];
  const tenant = ctx.state.tenants.get(instance.ref.tenant);
  const atMostOne = tenant && isAtMostOne(specOf(tenant, newest.ref));
  const before = older[0]!;
  if (newest.phase.kind !== "ready" && before.phase.kind === "ready" && !atMostOne) {
    // A replacement under way: the old one serves until the new one does.
    if (tenant && !ctx.state.successors.has(newest.ref.id) && !ctx.state.moves.has(before.ref.id)) {
      newest.replaces = before.ref.id;
      const move = {
        old: before.ref,
        why: "adopted" as const,
        revision: serving(tenant),
        placeBy: ctx.at.mono,
        stopFirst: false,
      };
      enterMove(ctx, tenant, move);
      placedFor(ctx, move, newest);
    }
    older.shift();
  }
  for (const other of older) {
    if (!ctx.state.moves.has(other.ref.id)) beginStop(ctx, other, ExitReason.SUPERSEDED);
  }
}

/** Late and lost nodes. */
export function watchNodes(ctx: Context): void {
  const { state, config, at } = ctx;
  if (at.mono - state.since < config.firstPeriodMs) return;
  const { lost: lostMs } = periodsOf(config, state.nodes.size);
  for (const node of state.nodes.values()) {
    const heard = Math.max(node.lastReport, state.awakeSince);
    if (!node.lost && at.mono - heard >= lostMs) lose(ctx, node);
  }
}

function lose(ctx: Context, node: Node): void {
  const { state } = ctx;
  node.lost = true;
  node.confirmed = false;
  count(ctx, "nodes_lost");
  const missing: Instance[] = [];
  for (const instance of instancesOn(state, node)) {
    const tenant = state.tenants.get(instance.ref.tenant);
    const atMostOne = tenant && isAtMostOne(specOf(tenant, instance.ref));
    if (instance.lost || atMostOne || instance.phase.kind === "persisting") continue;
    if (routable(instance)) withdraw(ctx, instance);
    giveUp(ctx, instance);
    // An attempt to put it away, or an answer to a command, is of no interest any more.
    if (instance.phase.kind === "ready") enter(ctx, instance, { kind: "ready" });
    movesGivenUp(ctx, instance);
    missing.push(instance);
  }
  complete(ctx, node);
  const silent = Math.round((ctx.at.mono - node.lastReport) / 1000);
  const message = `no report for ${silent} s; ${missing.length} instances may be started elsewhere`;
  nodeChanged(ctx, node.name, NodeChange.LOST, message);
  for (const { ref } of missing) {
    completeOperations(ctx, ref.tenant);
    const tenant = state.tenants.get(ref.tenant);
    if (!tenant) continue;
    // Started elsewhere at once where the spec says so, else at the next request.
    if (serving(tenant).spec.restart <= RestartPolicy.NEVER) tenant.scale = standingSlots(state, tenant.key);
    wish(ctx, tenant);
  }
  ctx.pumpWanted = true;
}

/** Somebody vouches that the node is gone for good: that is proof. */
export function forgetNode(
  ctx: Context,
  { call, node: name, force, loseVolumes }: Extract<Input, { type: "forget" }>,
): void {
  const { state, at, config } = ctx;
  const node = state.nodes.get(name);
  if (!node) {
    ctx.emit({ type: "refuse", call, refusal: { kind: "no-node-of-name", node: name } });
    return;
  }
  const silentMs = at.mono - node.lastReport;
  const lateMs = periodsOf(config, state.nodes.size).late;
  if (!force && node.confirmed && silentMs < lateMs) {
    const message = `node ${name} reported ${Math.round(silentMs)} ms ago and has ${node.placed} instances: stop its agent first, and forget the node once it has been silent for ${lateMs / 1000} s. With force it is forgotten all the same, its instances end, and its agent joins again as a new node`;
    ctx.emit({ type: "refuse", call, refusal: { kind: "node-reports", node: name, message } });
    return;
  }
  const displaced = displacedBy(state, name);
  const lost = displaced.filter(({ backup }) => !backup);
  if (lost.length > 0 && !loseVolumes) {
    const volumes = lost.map((volume) => `${volume.tenant}/${volume.name}`);
    ctx.emit({ type: "refuse", call, refusal: { kind: "loses-volumes", node: name, volumes } });
    return;
  }
  cancelDrain(ctx, node);
  displaceVolumes(ctx, name); // before anything is placed anew
  for (const instance of instancesOn(state, node)) goneWithNode(ctx, instance, "its node was forgotten");
  forgetOwedOn(ctx, name);
  state.nodes.delete(name);
  state.roster = state.roster.filter((other) => other !== node);
  for (const nodes of state.holders.values()) nodes.delete(name);
  ctx.emit({ type: "persist", write: { kind: "node-gone", name } });
  complete(ctx, node);
  nodeChanged(ctx, name, NodeChange.FORGOTTEN, "");
  // Those who wait for their volume may be placed anywhere now.
  ctx.retryWanted = true;
  ctx.pumpWanted = true;
  ctx.emit({ type: "answer", call, answer: { kind: "forgotten", volumes: displaced } });
}
