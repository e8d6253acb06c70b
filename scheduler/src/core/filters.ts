/** Why a node cannot take an instance: each filter with its name, in words that count nodes. Pure. */
import { neededRung, rungName, rungOfLimits } from "@warren/common/isolation";
import { Isolation, type TenantSpec } from "@warren/proto/common";
import type { CoreConfig } from "./config.ts";
import { type Estimate, peakOf, plus } from "./estimate.ts";
import type { Node } from "./model.ts";
import type { Need } from "./peaks.ts";
import { volumeBusyFilter, volumeFilter } from "./volume-filter.ts";

/** What is to be placed. */
export interface Wanted {
  readonly spec: TenantSpec;
  readonly need: Need;
  /** Nodes that could not start it just now, and until when (mono) they are avoided. */
  readonly avoided: ReadonlyMap<string, number> | undefined;
  /** The instances of a tenant of several by node. */
  readonly perNode: ReadonlyMap<string, number> | undefined;
  /** Where it is to leave. */
  readonly leaves: string | undefined;
  /** The node that its volumes lie on. */
  readonly home?: string;
  readonly isVolumeBusy?: boolean;
  readonly mono: number;
  /** Without a report for so long a node takes nothing. */
  readonly lateMs: number;
  readonly config: CoreConfig;
}

export interface Filter {
  /** In metrics. */
  readonly name: string;
  /** To a person. */
  readonly text: (spec: TenantSpec) => string;
  /** It passes with time. */
  readonly transient: boolean;
  readonly refuses: (node: Node, wanted: Wanted) => boolean;
}

const say = (text: string) => () => text;

export const filters: readonly Filter[] = [
  volumeFilter,
  volumeBusyFilter,
  {
    name: "not_reporting",
    text: say("not reporting"),
    transient: true,
    refuses: (node, { mono, lateMs }) => !node.confirmed || node.lost || mono - node.lastReport > lateMs,
  },
  { name: "cordoned", text: say("cordoned"), transient: true, refuses: (node) => node.cordoned },
  {
    name: "isolation",
    text: rungMissing,
    transient: false,
    refuses: (node, { spec }) => {
      const needed = neededRung(spec);
      return needed > Isolation.NONE && !node.isolation.some((rung) => rung >= needed);
    },
  },
  {
    name: "labels",
    text: say("label missing"),
    transient: false,
    refuses: (node, { spec }) => {
      for (const name in spec.nodeLabels) if (node.labels[name] !== spec.nodeLabels[name]) return true;
      return false;
    },
  },
  {
    name: "directories",
    text: say("no tenants from directories"),
    transient: false,
    refuses: (node, { spec }) => spec.source.case === "directory" && !node.allowDirectories,
  },
  {
    name: "leaving",
    text: say("to be left"),
    transient: true,
    refuses: (node, { leaves }) => node.name === leaves,
  },
  {
    name: "instances",
    text: say("full of instances"),
    transient: true,
    refuses: (node) => placesLack(node) > 0,
  },
  {
    name: "per_node",
    text: say("has as many of this tenant as it may"),
    transient: true,
    refuses: (node, { perNode, spec }) => {
      const most = spec.instances?.maxPerNode ?? 0;
      return most > 0 && (perNode?.get(node.name) ?? 0) >= most;
    },
  },
  {
    name: "memory",
    text: say("not enough memory"),
    transient: true,
    refuses: (node, wanted) => memoryLack(node, wanted) > 0,
  },
  {
    name: "pressure",
    text: say("short of memory (PSI)"),
    transient: true,
    // Of memory only: a host that waits for its CPU is slow, and counts as the worse for it, but does not fail.
    refuses: ({ pressure }, { config }) => (pressure?.memorySomeAvg10 ?? 0) > config.maxMemoryPressure,
  },
  {
    name: "starts",
    text: say("starting as many as it may"),
    transient: true,
    refuses: (node, { config }) => node.starting >= mostStarts(node, config),
  },
  {
    name: "failed",
    text: say("failed a start just now"),
    transient: true,
    refuses: (node, { mono, avoided }) => avoided !== undefined && (avoided.get(node.name) ?? 0) > mono,
  },
];

/** Places that must be given back before one more instance may be placed on the node. */
export function placesLack({ capacity, placed }: Node): number {
  const max = capacity?.maxInstances ?? 0;
  return max > 0 ? Math.max(0, placed + 1 - max) : 0;
}

/**
 * Bytes that the node lacks for the instance, not above 0 if it has room: by what its instances are predicted to need
 * together, or by what they hold now. CPU has no such bound: it is compressible, and only ranks nodes (place.ts).
 * @param instead what its instances need, and what will have been given back of what they hold
 */
export function memoryLack(
  { capacity, charged, pressure }: Node,
  { need, config }: Wanted,
  instead?: { readonly needed: Estimate; readonly freed: number },
): number {
  const has = Number(capacity?.memoryBytes ?? 0n);
  const predicted = peakOf(plus(instead?.needed ?? charged.memory, need.memory));
  const held = Number(pressure?.tenantMemoryBytes ?? 0n) - (instead?.freed ?? 0);
  return Math.max(predicted - has * config.overcommitMemory, held + peakOf(need.memory) - has);
}

function mostStarts(node: Node, config: CoreConfig): number {
  return Math.max(4, Math.ceil(((node.capacity?.cpuMillis ?? 0) / 1000) * config.startsPerCore));
}

/** "isolation rung cgroup missing", and what asks for it where the spec does not say so by name. */
function rungMissing(spec: TenantSpec): string {
  const needed = neededRung(spec);
  const asks =
    needed > spec.isolation && (rungOfLimits(spec) === needed ? "limits need" : "volume's path needs");
  const why = asks ? ` (its ${asks} it)` : "";
  return `isolation rung ${rungName(needed)} missing${why}`;
}

/**
 * The filter that keeps the instance off the node, if there is one.
 * @param but filters that do not count
 */
export function refusing(node: Node, wanted: Wanted, but: readonly string[] = []): Filter | undefined {
  for (const filter of filters) if (filter.refuses(node, wanted) && !but.includes(filter.name)) return filter;
  return undefined;
}

/** "not reporting: 2 nodes, cordoned: 1 node", or that there is no node at all. */
export function refusedText(refused: Readonly<Record<string, number>>): string {
  const parts = Object.entries(refused).map(([name, n]) => `${name}: ${n} node${n === 1 ? "" : "s"}`);
  return parts.length ? parts.join(", ") : "no node has joined";
}
