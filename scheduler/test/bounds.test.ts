/** Rule 9: what waits has a bound, and so has what is tried again. */
import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { InstancesSchema } from "@warren/proto/common";
import { Cluster } from "./cluster.ts";

test("rule 9: calls that wait for a reload or for a drain are bounded", () => {
  const c = new Cluster({ config: { maxWaitingPerTenant: 3 } });
  c.addGateway("g");
  c.apply("a");
  c.ensure("a");
  c.run(200);
  c.behaviour.set("a", "hangs");
  const deadline = c.now + 60_000;
  const reloads = [1, 2, 3, 4].map(() => c.ask((call) => ({ type: "reload", call, tenant: "a", deadline })));
  const drains = [1, 2, 3, 4].map(() =>
    c.ask((call) => ({ type: "drain", call, node: "n1", deadline, until: deadline })),
  );
  for (const calls of [reloads, drains]) {
    expect(c.refused(calls[3]!)).toMatchObject({ kind: "too-many", limit: 3 });
    for (const call of calls.slice(0, 3)) expect(c.outcomes.has(call)).toBe(false);
  }
});

test("rule 9: a store that takes nothing is not asked in a circle, and is asked again", () => {
  const c = new Cluster();
  c.apply("a", { instances: create(InstancesSchema, { min: 1 }) });
  c.run(200);
  c.storeUp = false;
  const placed = c.core.state.placements;
  c.crash(c.live()[0]!.id);
  c.run(5_000);
  expect(c.core.state.placements - placed).toBeLessThanOrEqual(11);
  c.storeUp = true;
  c.run(1_000);
  expect(c.live()).toHaveLength(1);
});

/** Nodes that were looked at for a place, from now on. */
function looked(c: Cluster): () => number {
  const count = () => Object.values(c.core.state.refusals).reduce((sum, n) => sum + n, 0);
  const before = count();
  return () => count() - before;
}

test("rule 9: whoever asks for what no node can take does not have all nodes looked at for each call", () => {
  const c = new Cluster({ nodes: 50 });
  c.apply("waits");
  c.apply("unfit", { nodeLabels: { disk: "large" } });
  for (const node of c.core.state.nodes.values()) node.cordoned = true;
  c.ensure("waits", 60_000);
  for (const node of c.core.state.nodes.values()) node.cordoned = false;
  c.refused(c.ensure("unfit"));
  for (const node of c.core.state.nodes.values()) node.cordoned = true;
  const nodes = looked(c);
  for (let i = 0; i < 100; i++) {
    c.ensure("waits", 60_000);
    expect(c.refused(c.ensure("unfit"))).toMatchObject({ kind: "no-node", refused: { "label missing": 50 } });
  }
  expect(nodes()).toBe(0);
});

test("rule 6: tenants that wait for a node do not slow the starts of others where there are many nodes", () => {
  const c = new Cluster({ nodes: 300 });
  c.check = () => {}; // it counts all nodes at every step
  for (let i = 0; i < 10; i++) {
    c.apply(`waits${i}`, { nodeLabels: { disk: "large" } });
    c.apply(`a${i}`);
  }
  const large = c.core.state.nodes.get("n1")!;
  large.labels = { disk: "large" };
  large.cordoned = true;
  for (let i = 0; i < 10; i++) c.ensure(`waits${i}`, 60_000);
  c.run(1);
  const nodes = looked(c);
  for (let i = 0; i < 10; i++) c.ensure(`a${i}`);
  while (
    c.live().length < 10 ||
    [...c.core.state.instances.values()].some(({ phase }) => phase.kind !== "ready")
  )
    c.run(1);
  // Each of the ten starts would have had eight of them tried everywhere.
  expect(nodes()).toBeLessThanOrEqual(8 * 8 * 300);
  c.feed({ type: "cordon", call: "x", node: "n1", cordoned: false });
  c.run(1_000);
  expect(c.live()).toHaveLength(20);
});
