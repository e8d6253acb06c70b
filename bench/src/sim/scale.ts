/** How the core's decisions grow with the cluster. */
import { heapStats } from "bun:jsc";
import { seeded } from "@warren/common/testing/seeded";
import type { Bench } from "../harness/bench.ts";
import { short, table } from "../harness/table.ts";
import { World } from "./world.ts";
import { yielding } from "./yielding.ts";

export interface Size {
  readonly nodes: number;
  readonly tenants: number;
}

/** Placements measured at each size, below the cap and at it. */
const placements = 20_000;

export async function scale(bench: Bench, sizes: readonly Size[]): Promise<void> {
  const rows: string[][] = [];
  for (const size of sizes) {
    bench.say(`${size.nodes} nodes, ${size.tenants} tenants`);
    await yielding(bench.signal);
    rows.push(measure(size));
  }
  const head = [
    "nodes",
    "tenants",
    "bytes per tenant",
    "placements/s",
    "placing: p50 µs",
    "p99 µs",
    "at the cap: placements/s",
    "p99 µs",
    "warm Ensure: µs",
    "report: µs",
    "tick: µs",
  ];
  bench.print(`### Decisions\n\n${table(head, rows)}`);
}

function measure({ nodes, tenants }: Size): string[] {
  const below = Math.min(placements, tenants / 2);
  const random = seeded(1);
  const world = new World(
    { maxConcurrent: below, maxTenants: tenants, minResidenceMs: 0, idleStopAfterMs: 1e12 },
    random,
    () => 3e7,
  );
  for (let i = 0; i < nodes; i++) world.addNode(`n${i}`);
  const before = heap();
  for (let i = 0; i < tenants; i++) world.addTenant(`t${i}`);
  const perTenant = (heap() - before) / tenants;

  world.spentMs = 0;
  const free: number[] = [];
  for (let i = 0; i < below; i++) {
    world.now += 0.1;
    free.push(world.ensure(`t${i}`));
  }
  const freeRate = (below / world.spentMs) * 1_000;
  if (world.coldStarts !== below) throw new Error(`${world.coldStarts} of ${below} were placed`);

  // Now each start needs the end of another.
  world.now += 10_000;
  for (let i = 0; i < nodes; i++) world.report(`n${i}`);
  world.spentMs = 0;
  const capped: number[] = [];
  for (let i = below; i < 2 * below; i++) {
    world.now += 0.1;
    capped.push(world.ensure(`t${i}`));
  }
  const cappedRate = (below / world.spentMs) * 1_000;
  if (world.evictions !== below)
    throw new Error(`${world.evictions} evictions for ${below} starts at the cap`);

  const mean = (n: number, run: (i: number) => number) => {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += run(i);
    return (sum / n) * 1_000;
  };
  const warm = mean(10_000, (i) => world.ensure(`t${below + (i % below)}`));
  const report = mean(Math.min(nodes, 2_000), (i) => world.report(`n${i}`));
  const tick = mean(100, () => {
    world.now += 50;
    return world.feed({ type: "tick" });
  });
  const us = (values: number[], q: number) =>
    short(values.toSorted((a, b) => a - b)[Math.floor((values.length - 1) * q)]! * 1_000);
  return [
    String(nodes),
    String(tenants),
    short(perTenant),
    short(freeRate),
    us(free, 0.5),
    us(free, 0.99),
    short(cappedRate),
    us(capped, 0.99),
    short(warm),
    short(report),
    short(tick),
  ];
}

function heap(): number {
  Bun.gc(true);
  return heapStats().heapSize;
}
