import { expect, test } from "bun:test";
import { Leadership } from "../src/leadership.ts";
import { schedulerMetrics } from "../src/metrics.ts";
import type { Term } from "../src/term.ts";
import { Cluster } from "./cluster.ts";

test("what was decided and refused is counted by name, and of one that does not lead nothing is told", async () => {
  const c = new Cluster({ nodes: 2 });
  c.nodes.get("n2")!.isolation = [];
  c.core.state.nodes.get("n2")!.cordoned = true;
  c.core.state.nodes.get("n1")!.cordoned = true;
  c.apply("a");
  c.ensure("a", 500);
  c.run(600);
  c.core.state.nodes.get("n1")!.cordoned = false;
  c.ensure("a");
  c.run(500);
  const leadership = new Leadership(() => {});
  const { registry, decided } = schedulerMetrics(leadership, { size: 0, dropped: 0 }, 7);
  decided("ensure", 0.2);
  const follower = await registry.metrics();
  expect(follower).toContain("warren_scheduler_leader 0");
  expect(follower).not.toContain("cordoned");
  leadership.lead({ holds: true, state: c.core.state, epoch: 3n, dropped: 0 } as unknown as Term);
  const text = await registry.metrics();
  for (const line of [
    "warren_scheduler_leader 1",
    "warren_scheduler_terms_total 1",
    "warren_scheduler_max_concurrent 7",
    'warren_scheduler_instances{mode="active"} 1',
    'warren_scheduler_nodes{state="up"} 2',
    'warren_scheduler_decisions_total{name="placements"} 1',
    'warren_scheduler_decision_seconds_count{input="ensure"} 1',
  ])
    expect(text).toContain(line);
  expect(text).toMatch(/warren_scheduler_placement_refusals_total\{filter="cordoned"\} \d+/);
});
