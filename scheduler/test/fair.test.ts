/** Whose turn it is where places are short: by priority, then the longest waiting. */
import { expect, test } from "bun:test";
import { Cluster } from "./cluster.ts";

test("a place that comes free at the cap goes to the higher priority, though a lower one has waited for a node", () => {
  const c = new Cluster({ config: { maxConcurrent: 1 } });
  const g = c.addGateway("g");
  const node = c.core.state.nodes.get("n1")!;
  const { capacity } = node;
  for (const [key, priority] of [
    ["low", 0],
    ["first", 9],
    ["high", 5],
  ] as const)
    c.apply(key, { priority });
  node.capacity = { ...capacity!, memoryBytes: 1n };
  c.ensure("low", 60_000); // no node has room
  c.run(100);
  node.capacity = capacity;
  c.ensure("first");
  c.run(200);
  c.touch(g, c.live()[0]!.id, 1);
  c.ensure("high", 60_000);
  c.run(200);
  expect(c.live().map(({ tenant }) => tenant)).toEqual(["first"]);
  c.crash(c.live()[0]!.id);
  c.run(200);
  expect(c.live().map(({ tenant }) => tenant)).toEqual(["high"]);
});
