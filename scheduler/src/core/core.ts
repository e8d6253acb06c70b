/**
 * The scheduler's core: a pure state machine. It has no clock, no randomness and no I/O of its own, so that the same
 * code runs in production, in unit tests and under a simulator.
 *
 *     (state, input, at) → effects
 *
 * Rules of DESIGN section 5 that are decided here: 1 (queue.ts, life.ts), 2 (desire.ts, replace.ts, nodes.ts), 3 (quiesce.ts,
 * sleep.ts), 4 (waiters.ts), 6 (failures.ts), 7 (nodes.ts), 9 (config.ts).
 */

import { backedUp } from "./backups.ts";
import type { CoreConfig } from "./config.ts";
import { type Context, count } from "./context.ts";
import { cordon, cordonFailed } from "./cordon.ts";
import { wish } from "./desire.ts";
import { drainNode, volumeSaved } from "./drain.ts";
import type { Effect } from "./effects.ts";
import { gatewayWent, watcherCame } from "./endpoints.ts";
import { limitsReached, resumeLimits } from "./enforce.ts";
import { cancel, ensure } from "./ensure.ts";
import { clearFailures } from "./failures.ts";
import { holds } from "./holders.ts";
import type { Input, Loaded } from "./inputs.ts";
import { placementDurable, placementFailed, started, stopAnswered } from "./life.ts";
import { emptyState, type Moment, type State, standingSlots } from "./model.ts";
import { expected, forgetNode, join, report } from "./nodes.ts";
import { operate } from "./operations.ts";
import { track } from "./phases.ts";
import { reload } from "./rollout.ts";
import { settle } from "./settle.ts";
import { slept } from "./sleep.ts";
import { applied, apply, deleted, deleteFailed, install, notDurable } from "./tenants.ts";
import { tick } from "./tick.ts";
import { touch } from "./touch.ts";
import { backUpVolume, removeVolume, restoreVolume, volumeRemoved } from "./volume-calls.ts";
import { resumeVolumes } from "./volumes.ts";

export interface CoreOptions {
  readonly config: CoreConfig;
  readonly epoch: bigint;
  /** When this scheduler took over (mono). */
  readonly since: number;
  readonly random: () => number;
  readonly newId: () => string;
}

export class Core {
  readonly state: State;
  readonly config: CoreConfig;
  readonly #random: () => number;
  readonly #newId: () => string;

  constructor(options: CoreOptions) {
    this.config = options.config;
    this.state = emptyState(options.epoch, options.since);
    this.#random = options.random;
    this.#newId = options.newId;
  }

  /** Takes one input; answers what is to be done, in order. */
  step(input: Input, at: Moment): Effect[] {
    const effects: Effect[] = [];
    const ctx: Context = {
      state: this.state,
      config: this.config,
      at,
      random: this.#random,
      newId: this.#newId,
      ended: [],
      movesEnded: [],
      pumpWanted: false,
      roomOn: new Set(),
      retryWanted: false,
      emit: (effect) => effects.push(effect),
    };
    take(ctx, input);
    settle(ctx);
    return effects;
  }
}

function take(ctx: Context, input: Input): void {
  const { state } = ctx;
  switch (input.type) {
    case "load":
      load(ctx, input.loaded);
      return;
    case "apply":
      apply(ctx, input.call, input.spec, input.expected);
      return;
    case "apply-durable":
      applied(ctx, input.call, input.record);
      return;
    case "delete-durable":
      deleted(ctx, input.tenant);
      return;
    case "delete-failed":
      deleteFailed(ctx, input.tenant, input.message);
      return;
    case "not-durable":
      notDurable(ctx, input);
      return;
    case "release":
      state.releases.set(input.release.digest, input.release);
      return;
    case "release-fetched":
      if (state.releases.has(input.digest)) holds(state, { release: input.digest, node: input.node });
      return;
    case "release-going":
      state.releases.delete(input.digest);
      return;
    case "release-gone":
      state.holders.delete(input.digest);
      count(ctx, "releases_collected");
      return;
    case "ensure":
      ensure(ctx, input.call, input.tenant, input.deadline);
      return;
    case "cancel":
      cancel(ctx, input.call, input.tenant);
      return;
    case "touch":
      touch(ctx, input.source, input.entries);
      return;
    case "operation":
      operate(ctx, input);
      return;
    case "clear-backoff": {
      const tenant = state.tenants.get(input.tenant);
      if (!tenant) return;
      clearFailures(tenant);
      wish(ctx, tenant);
      return;
    }
    case "reload":
      reload(ctx, input.call, input.tenant, input.deadline);
      return;
    case "drain":
      drainNode(ctx, input);
      return;
    case "join":
      join(ctx, input.call, input.info);
      return;
    case "report":
      report(ctx, input);
      return;
    case "cordon":
      cordon(ctx, input.call, input.node, input.cordoned);
      return;
    case "volume-durable":
    case "cordon-durable":
      ctx.emit({ type: "answer", call: input.call, answer: { kind: "done" } });
      return;
    case "cordon-failed":
      cordonFailed(ctx, input.call, input.node, input.before);
      return;
    case "forget":
      forgetNode(ctx, input);
      return;
    case "remove-volume":
      removeVolume(ctx, input);
      return;
    case "volume-removed":
      volumeRemoved(ctx, input);
      return;
    case "restore-volume":
      restoreVolume(ctx, input);
      return;
    case "backup-volume":
      backUpVolume(ctx, input);
      return;
    case "backed-up": {
      const held = backedUp(ctx, input);
      if (held) volumeSaved(ctx, held);
      return;
    }
    case "watcher-up":
      watcherCame(ctx, input.watcher, input.gateway);
      return;
    case "gateway-down":
      gatewayWent(ctx, input.gateway);
      return;
    case "limits-reached":
      limitsReached(ctx, input.reached);
      return;
    case "tick":
      tick(ctx);
      return;
    default:
      ofInstance(ctx, input);
  }
}

/** Inputs about one instance; one that is gone has nothing to hear any more (rule 6). */
function ofInstance(
  ctx: Context,
  input: Extract<Input, { type: "placement-durable" | "placement-failed" | "started" | "stopped" | "slept" }>,
): void {
  const instance = ctx.state.instances.get(input.instance);
  if (!instance) return;
  switch (input.type) {
    case "placement-durable":
      placementDurable(ctx, instance);
      return;
    case "placement-failed":
      placementFailed(ctx, instance, input.message);
      return;
    case "started":
      started(ctx, instance, input.outcome);
      return;
    case "stopped":
      stopAnswered(ctx, instance, input);
      return;
    case "slept":
      slept(ctx, instance, input.command, input.outcome);
      return;
  }
}

/** Takes over from the scheduler before. Its placements hold their places until their nodes have spoken. */
function load(ctx: Context, { tenants, limits, releases, nodes, placements, volumes }: Loaded): void {
  resumeVolumes(ctx.state, volumes);
  for (const record of tenants) install(ctx, record);
  resumeLimits(ctx, limits);
  for (const release of releases) ctx.state.releases.set(release.digest, release);
  for (const node of nodes) expected(ctx, node);
  for (const ref of placements) {
    // Without its node in the roster nothing would ever end it: it is to be lost like any other, or forgotten.
    if (!ctx.state.nodes.has(ref.node))
      expected(ctx, { name: ref.node, agentUrl: "", bootId: "", cordoned: false });
    // Versions rise for a tenant deleted and made anew, too: what is left of the old one is known by them.
    ctx.state.specs = Math.max(ctx.state.specs, Number(ref.specVersion));
    track(ctx, ref, { kind: "unconfirmed" });
  }
  for (const tenant of ctx.state.tenants.values()) {
    tenant.scale = standingSlots(ctx.state, tenant.key);
    wish(ctx, tenant);
  }
}
