/** What a seed stands for: how large the cluster is, what its users do and what goes wrong, each at its time. */
import { RestartPolicy } from "@warren/proto/common";
import { type CoreConfig, defaultCoreConfig } from "@warren/scheduler/core/config";
import type { Behaviour } from "./host.ts";
import { Rng } from "./rng.ts";

export interface Setup {
  readonly seed: number;
  readonly nodes: number;
  readonly gateways: number;
  readonly tenants: number;
  /** Per node. */
  readonly maxInstances: number;
  readonly config: CoreConfig;
}

/** What users and the outside world do. */
export type Op =
  | { readonly kind: "apply"; readonly tenant: number; readonly variant: number; readonly wants: Wants }
  | { readonly kind: "delete"; readonly tenant: number; readonly withinMs: number }
  | {
      readonly kind: "ensure";
      readonly tenant: number;
      readonly withinMs: number;
      readonly cancelAfterMs: number;
    }
  | { readonly kind: "request"; readonly tenant: number; readonly gateway: number; readonly ms: number }
  | { readonly kind: "stop" | "restart" | "reload"; readonly tenant: number; readonly withinMs: number }
  | { readonly kind: "clear-backoff"; readonly tenant: number }
  /** The ledger finds that its use has reached a limit, for so long. */
  | { readonly kind: "limit"; readonly tenant: number; readonly ms: number }
  | { readonly kind: "cordon"; readonly node: number; readonly ms: number }
  | { readonly kind: "drain"; readonly node: number; readonly withinMs: number; readonly ms: number };

/** The policies of a spec; 0 and absent leave it to the cluster. */
export interface Wants {
  readonly freezeMs: number;
  readonly stopMs: number;
  readonly min: number;
  readonly max: number;
  readonly priority: number;
  readonly restart: RestartPolicy;
  readonly batch: number;
  readonly stopFirst: boolean;
  readonly keepWarm: boolean;
}

export type Fault =
  | {
      readonly kind: "behaviour";
      readonly tenant: number;
      readonly behaviour: Behaviour;
      readonly ms: number;
    }
  | { readonly kind: "tenant-death"; readonly pick: number }
  | { readonly kind: "agent-crash" | "agent-pause"; readonly node: number; readonly ms: number }
  | { readonly kind: "power-off"; readonly node: number; readonly ms: number; readonly forget: boolean }
  | { readonly kind: "slow-node"; readonly node: number; readonly factor: number; readonly ms: number }
  | { readonly kind: "scheduler-crash" | "scheduler-pause"; readonly ms: number }
  /** Another scheduler takes over while the leader runs, or is stopped for a while. */
  | { readonly kind: "failover"; readonly stoppedMs: number; readonly staysMs: number }
  | { readonly kind: "gateway-crash" | "gateway-pause"; readonly gateway: number; readonly ms: number }
  | {
      readonly kind: "partition";
      readonly a: Place;
      readonly b: Place;
      readonly ways: "there" | "back" | "both";
      readonly ms: number;
    }
  | {
      readonly kind: "storm";
      readonly lost: number;
      readonly doubled: number;
      readonly late: number;
      readonly lateMs: number;
      readonly ms: number;
    }
  | { readonly kind: "store-outage"; readonly ms: number }
  | { readonly kind: "store-slow"; readonly slowMs: number; readonly ms: number }
  | { readonly kind: "clock-step"; readonly byMs: number };

/** An end of a link. */
export type Place = "scheduler" | { readonly node: number } | { readonly gateway: number };

export type Item = { readonly at: number } & (Op | Fault);

export const faultKinds = [
  "behaviour",
  "tenant-death",
  "agent-crash",
  "agent-pause",
  "power-off",
  "slow-node",
  "scheduler-crash",
  "scheduler-pause",
  "failover",
  "gateway-crash",
  "gateway-pause",
  "partition",
  "storm",
  "store-outage",
  "store-slow",
  "clock-step",
] as const satisfies readonly Fault["kind"][];

export function isFault(item: Item): item is Item & Fault {
  return (faultKinds as readonly string[]).includes(item.kind);
}

export interface Plan {
  readonly setup: Setup;
  readonly items: readonly Item[];
  /** When the faults stop, ms. */
  readonly endsAt: number;
}

/** Every `crowded`th seed has hundreds of nodes, every `thronged`th thousands. */
const crowded = 40;
const thronged = 2_000;

export function planOf(seed: number): Plan {
  const rng = new Rng(seed).fork("plan");
  const isCrowd = seed % crowded === crowded - 1;
  const isThrong = seed % thronged === thronged - 1;
  const nodes = isThrong
    ? rng.whole(1_000, 2_500)
    : isCrowd
      ? rng.whole(100, 400)
      : Math.round(rng.log(1, 9));
  const tenants = isCrowd ? rng.whole(50, 200) : Math.round(rng.log(2, 25));
  const setup: Setup = {
    seed,
    nodes,
    tenants,
    gateways: rng.whole(1, 3),
    maxInstances: rng.chance(0.3) ? rng.whole(2, 6) : 0,
    config: {
      ...defaultCoreConfig,
      maxConcurrent: Math.max(1, Math.round(tenants * rng.between(0.3, 1.2))),
      idleFreezeAfterMs: rng.log(500, 20_000),
      idlePageOutAfterMs: rng.log(1_000, 20_000),
      idleStopAfterMs: rng.between(1_000, 15_000),
      placement: rng.pick(["pack", "spread"]),
      rebalance: rng.chance(0.2),
      rebalanceMs: rng.between(1_000, 5_000),
      moveMs: rng.between(2_000, 20_000),
      targetConcurrency: rng.pick([1, 2, 50]),
      scaleDownMs: rng.between(1_000, 8_000),
      minResidenceMs: rng.between(50, 1_000),
      quiesceMs: rng.between(500, 2_000),
      quiesceAgainMs: rng.between(100, 1_000),
      drainMs: rng.between(200, 3_000),
      graceMs: rng.between(200, 2_000),
      readinessMs: rng.between(1_000, 4_000),
      maxWaiting: rng.chance(0.2) ? rng.whole(3, 20) : 10_000,
      backoffBaseMs: 200,
      backoffMaxMs: 4_000,
      minUptimeMs: 2_000,
    },
  };
  const endsAt = isCrowd ? 30_000 : rng.between(20_000, 90_000);
  const items: Item[] = [];
  for (let tenant = 0; tenant < tenants; tenant++) {
    items.push({ at: rng.between(0, 500), kind: "apply", tenant, variant: 0, wants: wantsOf(rng) });
  }
  // Which kinds of trouble there are, and how much, differs from seed to seed: all at once hides what two do together.
  const kinds = faultKinds.filter(() => rng.chance(0.35));
  const perSecond = rng.log(2, 25);
  const faultsPerSecond = kinds.length === 0 ? 0 : rng.log(0.05, 1);
  for (let at = 600; at < endsAt; at += rng.between(0, 2_000 / perSecond))
    items.push({ at, ...opOf(rng, setup) });
  if (faultsPerSecond > 0) {
    for (let at = 1_000; at < endsAt; at += rng.between(0, 2_000 / faultsPerSecond)) {
      items.push({ at, ...faultOf(rng, setup, rng.pick(kinds)) });
    }
  }
  items.sort((a, b) => a.at - b.at);
  return { setup, items, endsAt };
}

function wantsOf(rng: Rng): Wants {
  const several = rng.chance(0.25);
  const min = rng.chance(0.15) ? rng.whole(1, 2) : 0;
  return {
    freezeMs: rng.chance(0.4) ? 0 : rng.log(200, 10_000),
    stopMs: rng.chance(0.4) ? 0 : rng.log(300, 15_000),
    min,
    max: several ? Math.max(min, rng.whole(2, 4)) : min,
    priority: rng.chance(0.2) ? rng.whole(1, 3) : 0,
    restart: rng.chance(0.3)
      ? rng.pick([RestartPolicy.ON_FAILURE, RestartPolicy.ALWAYS])
      : RestartPolicy.UNSPECIFIED,
    batch: rng.whole(0, 2),
    stopFirst: rng.chance(0.2),
    keepWarm: rng.chance(0.05),
  };
}

function opOf(rng: Rng, { tenants, nodes, gateways }: Setup): Op {
  // Few are used much.
  const tenant = Math.min(tenants - 1, Math.floor(tenants * rng.next() ** 2));
  const withinMs = rng.log(50, 20_000);
  const what = rng.next();
  if (what < 0.6) {
    const ms = rng.chance(0.85) ? rng.log(1, 500) : rng.log(1_000, 25_000);
    return { kind: "request", tenant, gateway: rng.whole(0, gateways - 1), ms };
  }
  if (what < 0.8)
    return { kind: "ensure", tenant, withinMs, cancelAfterMs: rng.chance(0.2) ? rng.log(1, 3_000) : 0 };
  if (what < 0.86) return { kind: "apply", tenant, variant: rng.whole(1, 1_000_000), wants: wantsOf(rng) };
  if (what < 0.89) return { kind: "delete", tenant, withinMs };
  if (what < 0.92) return { kind: "stop", tenant, withinMs };
  if (what < 0.945) return { kind: "restart", tenant, withinMs };
  if (what < 0.97) return { kind: "reload", tenant, withinMs };
  if (what < 0.977) return { kind: "clear-backoff", tenant };
  if (what < 0.98) return { kind: "limit", tenant, ms: rng.log(100, 30_000) };
  if (what < 0.988)
    return { kind: "drain", node: rng.whole(0, nodes - 1), withinMs, ms: rng.log(500, 15_000) };
  return { kind: "cordon", node: rng.whole(0, nodes - 1), ms: rng.log(100, 10_000) };
}

function faultOf(rng: Rng, { tenants, nodes, gateways }: Setup, kind: Fault["kind"]): Fault {
  const node = rng.whole(0, nodes - 1);
  const gateway = rng.whole(0, gateways - 1);
  const tenant = rng.whole(0, tenants - 1);
  const short = rng.log(20, 8_000);
  const long = rng.log(100, 30_000);
  switch (kind) {
    case "behaviour": {
      const bad = ["crashes", "hangs", "dies", "ends", "stubborn", "refused", "unstartable"] as const;
      return { kind, tenant, behaviour: rng.pick(bad), ms: long };
    }
    case "tenant-death":
      return { kind, pick: rng.next() };
    case "agent-crash":
      return { kind, node, ms: rng.chance(0.7) ? short : long };
    case "agent-pause":
      return { kind, node, ms: rng.chance(0.7) ? short : long };
    case "power-off":
      return { kind, node, ms: long, forget: rng.chance(0.3) };
    case "slow-node":
      return { kind, node, factor: rng.log(2, 50), ms: long };
    case "scheduler-crash":
    case "scheduler-pause":
      return { kind, ms: short };
    case "failover":
      return { kind, stoppedMs: rng.chance(0.5) ? 0 : short, staysMs: rng.between(0, 15_000) };
    case "gateway-crash":
    case "gateway-pause":
      return { kind, gateway, ms: short };
    case "partition": {
      const place = (): Place =>
        rng.chance(0.35) ? "scheduler" : rng.chance(0.7) ? { node: rng.whole(0, nodes - 1) } : { gateway };
      return { kind, a: place(), b: place(), ways: rng.pick(["there", "back", "both", "both"]), ms: long };
    }
    case "storm":
      return {
        kind,
        lost: rng.chance(0.6) ? rng.between(0, 0.2) : 0,
        doubled: rng.chance(0.4) ? rng.between(0, 0.3) : 0,
        late: rng.chance(0.6) ? rng.between(0, 0.3) : 0,
        lateMs: rng.log(20, 15_000),
        ms: long,
      };
    case "store-outage":
      return { kind, ms: rng.log(20, 20_000) };
    case "store-slow":
      return { kind, slowMs: rng.log(2, 1_000), ms: long };
    case "clock-step":
      return { kind, byMs: rng.pick([-1, 1]) * rng.log(10, 1e8) };
  }
}
