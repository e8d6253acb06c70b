/**
 * What sampling loses against a full best-fit scan, and what predictions gain, on a workload as platforms have it: few tenants are used much (Zipf),
 * their memory differs by orders of magnitude, and the day has a peak and a trough.
 */

import { seeded } from "@warren/common/testing/seeded";
import type { CoreConfig } from "@warren/scheduler/core/config";
import type { Bench } from "../harness/bench.ts";
import { short, table } from "../harness/table.ts";
import { nodeSize, World } from "./world.ts";
import { yielding } from "./yielding.ts";

export interface Workload {
  readonly nodes: number;
  readonly tenants: number;
  /** At the peak of the day. */
  readonly requestsPerSecond: number;
  readonly hours: number;
  readonly seeds: readonly number[];
}

const MiB = 2 ** 20;

const arms: readonly Arm[] = [
  { name: "sample of max(8, log₂ N), pack", predicts: true, config: {} },
  { name: "full scan, pack", predicts: true, config: { sampleLeast: Number.MAX_SAFE_INTEGER } },
  { name: "sample, spread", predicts: true, config: { placement: "spread" } },
  // Without predictions somebody has to say how much each tenant needs, and says the same for all.
  {
    name: "no predictions: 300 MiB each (Nomad's default)",
    predicts: false,
    config: { defaultMemoryBytes: 300 * MiB },
  },
  {
    name: "no predictions: 1,550 MiB each (95 % need less)",
    predicts: false,
    config: { defaultMemoryBytes: 1_550 * MiB },
  },
];

interface Arm {
  readonly name: string;
  /** Whether the scheduler is told what instances use. */
  readonly predicts: boolean;
  readonly config: Partial<CoreConfig>;
}

interface Figures {
  coldStarts: number;
  evictions: number;
  refused: number;
  /** Of capacity, over nodes that hold anything: mean over the samples. */
  filled: number;
  /** Nodes that hold anything, of all: mean over the samples. */
  used: number;
  /** Of all memory there is, at the fullest moment. */
  peak: number;
  /** Nodes whose tenants use more memory than they have, at worst. */
  over: number;
}

export async function quality(bench: Bench, workload: Workload): Promise<void> {
  const rows: string[][] = [];
  for (const arm of arms) {
    const { name } = arm;
    const runs: Figures[] = [];
    for (const seed of workload.seeds) {
      bench.say(`${name}, seed ${seed}`);
      runs.push(await day(bench.signal, workload, arm, seed));
    }
    const mean = (of: (one: Figures) => number) =>
      short(runs.reduce((sum, one) => sum + of(one), 0) / runs.length);
    rows.push([
      name,
      mean((one) => one.used * 100),
      mean((one) => one.filled * 100),
      mean((one) => one.peak * 100),
      mean((one) => one.over),
      mean((one) => one.coldStarts),
      mean((one) => one.evictions),
      mean((one) => one.refused),
    ]);
  }
  const { nodes, tenants, requestsPerSecond, hours, seeds } = workload;
  const head = [
    "",
    "nodes used, %",
    "of these filled, %",
    "of all, at the peak, %",
    "nodes over their memory",
    "cold starts",
    "evictions",
    "refused",
  ];
  bench.print(
    `### Quality\n\n${nodes} nodes, ${tenants} tenants by Zipf(1.0), a day in ${hours} h with a peak of ${requestsPerSecond} requests/s, means of ${seeds.length} seeds:\n\n${table(head, rows)}`,
  );
}

async function day(
  signal: AbortSignal,
  { nodes, tenants, requestsPerSecond, hours }: Workload,
  { predicts, config }: Arm,
  seed: number,
): Promise<Figures> {
  const random = seeded(seed);
  // Log-normal around 300 MiB: the same tenant is as large in every arm.
  const sizes = Array.from({ length: tenants }, () => 3e8 * Math.exp(normal(random)));
  const memoryOf = (key: string) => sizes[Number(key.slice(1))]!;
  const stopAfter = 20 * 60_000;
  const world = new World(
    { maxConcurrent: tenants, idleStopAfterMs: stopAfter, ...config },
    seeded(seed + 1),
    memoryOf,
    predicts,
  );
  for (let i = 0; i < nodes; i++) world.addNode(`n${i}`);
  for (let i = 0; i < tenants; i++) world.addTenant(`t${i}`);
  const pick = zipf(tenants, random);
  const end = hours * 3_600_000;
  const figures = { filled: 0, used: 0, over: 0, peak: 0 };
  let samples = 0;
  let elapsed = 0;
  const stepMs = 3_000; // nodes that have not reported for longer are late
  for (; elapsed < end; elapsed += stepMs) {
    // One day in the time there is; the quietest hour has a tenth of the busiest one's traffic.
    const load = 0.55 - 0.45 * Math.cos((elapsed / end) * 2 * Math.PI);
    const requests = Math.round(requestsPerSecond * load * (stepMs / 1_000));
    for (let i = 0; i < requests; i++) {
      world.now += stepMs / requests;
      world.ensure(`t${pick()}`);
    }
    world.feed({ type: "tick" });
    const withUsage = (elapsed / stepMs) % 20 === 0;
    for (let i = 0; i < nodes; i++) world.report(`n${i}`, false, withUsage);
    if (!withUsage) continue;
    samples++;
    await yielding(signal);
    const held = heldBy(world, memoryOf);
    figures.used += held.length / nodes;
    const all = held.reduce((sum, bytes) => sum + bytes, 0);
    figures.peak = Math.max(figures.peak, all / (nodes * nodeSize.memoryBytes));
    figures.filled +=
      held.reduce((sum, bytes) => sum + bytes / nodeSize.memoryBytes, 0) / Math.max(1, held.length);
    figures.over = Math.max(figures.over, held.filter((bytes) => bytes > nodeSize.memoryBytes).length);
  }
  const { coldStarts, evictions, refused } = world;
  return {
    coldStarts,
    evictions,
    refused,
    filled: figures.filled / samples,
    used: figures.used / samples,
    over: figures.over,
    peak: figures.peak,
  };
}

/** Memory in use by node, of nodes that hold anything. */
function heldBy({ core }: World, memoryOf: (tenant: string) => number): number[] {
  const held: number[] = [];
  for (const node of core.state.roster) {
    let bytes = 0;
    for (const id of node.instances) bytes += memoryOf(core.state.instances.get(id)!.ref.tenant);
    if (node.instances.size > 0) held.push(bytes);
  }
  return held;
}

function normal(random: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** Ranks by 1/rank, which rank a tenant has by chance. */
function zipf(n: number, random: () => number): () => number {
  const sums: number[] = [];
  let sum = 0;
  for (let rank = 1; rank <= n; rank++) {
    sum += 1 / rank;
    sums.push(sum);
  }
  return () => {
    const at = random() * sum;
    let low = 0;
    let high = n - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sums[middle]! < at) low = middle + 1;
      else high = middle;
    }
    return low;
  };
}
