/**
 * Where an instance goes: filters, each with its name, then the least loaded node by what was observed. Pure, and it
 * explains itself. The load of a node is the larger of its shares of memory and CPU, since either can run out first;
 * instances that are not observed yet are charged a default.
 */
import { neededRung, rungName, rungOfLimits } from "@warren/common/isolation";
import { Isolation, type TenantSpec } from "@warren/proto/common";
import type { Node } from "./model.ts";

export interface PlaceInput {
  readonly spec: TenantSpec;
  readonly nodes: Iterable<Node>;
  /** Instances placed on a node that are not gone. */
  readonly placed: (node: string) => number;
  /** Nodes that could not start it just now, and until when they are avoided. */
  readonly avoided: ReadonlyMap<string, number>;
  readonly mono: number;
  readonly lateMs: number;
  readonly defaultMemoryBytes: number;
  readonly random: () => number;
}

export type PlaceResult =
  | { readonly kind: "placed"; readonly node: Node; readonly why: string }
  | {
      readonly kind: "nowhere";
      /** Nodes refused, by filter. */
      readonly refused: Readonly<Record<string, number>>;
      /** Whether waiting may help: some node was refused for what passes by itself. */
      readonly transient: boolean;
    };

/** Why a node is refused, in words that count nodes. Those that pass with time are marked. */
type Filter = {
  readonly name: string | ((spec: TenantSpec) => string);
  readonly transient: boolean;
  readonly refuses: (node: Node, input: PlaceInput) => boolean;
};

const filters: readonly Filter[] = [
  {
    name: "not reporting",
    transient: true,
    refuses: (node, { mono, lateMs }) => !node.confirmed || node.lost || mono - node.lastReport > lateMs,
  },
  { name: "cordoned", transient: true, refuses: (node) => node.cordoned },
  {
    name: rungMissing,
    transient: false,
    refuses: (node, { spec }) => {
      const needed = neededRung(spec);
      return needed > Isolation.NONE && !node.isolation.some((rung) => rung >= needed);
    },
  },
  {
    name: "label missing",
    transient: false,
    refuses: (node, { spec }) =>
      Object.entries(spec.nodeLabels).some(([name, value]) => node.labels[name] !== value),
  },
  {
    name: "no tenants from directories",
    transient: false,
    refuses: (node, { spec }) => spec.source.case === "directory" && !node.allowDirectories,
  },
  {
    name: "full of instances",
    transient: true,
    refuses: (node, { placed }) => {
      const max = node.capacity?.maxInstances ?? 0;
      return max > 0 && placed(node.name) >= max;
    },
  },
  {
    name: "not enough memory",
    transient: true,
    refuses: (node, input) => memoryAfter(node, input) > Number(node.capacity?.memoryBytes ?? 0n),
  },
  {
    name: "failed a start just now",
    transient: true,
    refuses: (node, { mono, avoided }) => (avoided.get(node.name) ?? 0) > mono,
  },
];

/** "isolation rung cgroup missing", and what asks for it where the spec does not say so by name. */
function rungMissing(spec: TenantSpec): string {
  const needed = neededRung(spec);
  const why = rungOfLimits(spec) > spec.isolation ? " (its limits need it)" : "";
  return `isolation rung ${rungName(needed)} missing${why}`;
}

/** Tenant memory in bytes once one more instance stands there. */
function memoryAfter(node: Node, { placed, defaultMemoryBytes }: PlaceInput): number {
  const unobserved = Math.max(0, placed(node.name) - (node.pressure?.liveInstances ?? 0));
  return Number(node.pressure?.tenantMemoryBytes ?? 0n) + (unobserved + 1) * defaultMemoryBytes;
}

function loadOf(node: Node, input: PlaceInput): number {
  const memory = memoryAfter(node, input) / Math.max(1, Number(node.capacity?.memoryBytes ?? 0n));
  const cpu = node.cpuMillis / Math.max(1, node.capacity?.cpuMillis ?? 0);
  return Math.max(memory, cpu);
}

/** Loads within this much of each other are equal: then the node with fewer instances is taken. */
const even = 0.002;

export function place(input: PlaceInput): PlaceResult {
  const refused: Record<string, number> = {};
  let transient = false;
  let known = 0;
  let best: { node: Node; load: number; placed: number; lot: number } | undefined;
  for (const node of input.nodes) {
    known++;
    const refusing = filters.find((filter) => filter.refuses(node, input));
    if (refusing) {
      const { name } = refusing;
      const reason = typeof name === "string" ? name : name(input.spec);
      refused[reason] = (refused[reason] ?? 0) + 1;
      transient ||= refusing.transient;
      continue;
    }
    const candidate = {
      node,
      load: loadOf(node, input),
      placed: input.placed(node.name),
      lot: input.random(),
    };
    if (!best || better(candidate, best)) best = candidate;
  }
  if (!best) return { kind: "nowhere", refused, transient: transient || known === 0 };
  const others = known - 1;
  return {
    kind: "placed",
    node: best.node,
    why: `least loaded of ${known} node${others === 0 ? "" : "s"}: ${(best.load * 100).toFixed(1)} % of its larger share of memory and CPU, ${best.placed} instance${best.placed === 1 ? "" : "s"} there`,
  };
}

type Candidate = { readonly load: number; readonly placed: number; readonly lot: number };

function better(a: Candidate, b: Candidate): boolean {
  if (Math.abs(a.load - b.load) > even) return a.load < b.load;
  if (a.placed !== b.placed) return a.placed < b.placed;
  return a.lot < b.lot;
}

/** "not reporting: 2 nodes, cordoned: 1 node", or that there is no node at all. */
export function refusedText(refused: Readonly<Record<string, number>>): string {
  const parts = Object.entries(refused).map(([name, n]) => `${name}: ${n} node${n === 1 ? "" : "s"}`);
  return parts.length ? parts.join(", ") : "no node has joined";
}
