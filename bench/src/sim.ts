/**
 * The scheduler's core alone, without a network, a disk or a process: how fast it decides, how that grows with the cluster,
 * and how well, against a full scan of all nodes. The README says what can be set.
 */
import { runBench, setting } from "./harness/bench.ts";
import { quality } from "./sim/quality.ts";
import { scale } from "./sim/scale.ts";

const budgetMs = 1_500_000;

await runBench("sim", budgetMs, async (bench) => {
  const most = setting("TENANTS", 1_000_000, 20_000, 1_000_000);
  const nodes = setting("NODES", 100, 10, 5_000);
  const hours = setting("HOURS", 2, 1, 48);
  await scale(bench, [
    { nodes: 100, tenants: most / 100 },
    { nodes: 1_000, tenants: most / 10 },
    { nodes: 10_000, tenants: most },
  ]);
  bench.print(
    "\nAnchors, of whole systems with their stores and networks: Kubernetes' scheduler must reach 680–810 pods/s at 5,000 nodes in its CI; Nomad started 3,750 containers/s on 5,000 hosts (C1M).\n",
  );
  await quality(bench, { nodes, tenants: nodes * 250, requestsPerSecond: nodes, hours, seeds: [1, 2] });
});
