/** Who is evicted, where many may not be. */
import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { InstancesSchema } from "@warren/proto/common";
import { Lru } from "../src/core/lru.ts";
import { atMostOne, Cluster } from "./cluster.ts";

test("rule 9: a thousand that their specs keep do not hide the one behind them that may go", () => {
  const c = new Cluster({
    nodes: 3,
    config: {
      maxConcurrent: 1_101,
      startsPerCore: 10_000,
      defaultMemoryBytes: 1024,
      idleFreezeAfterMs: 1e9,
    },
  });
  const check = c.check.bind(c);
  c.check = () => {}; // it counts all of them at every step
  for (const key of ["kept1", "kept2"])
    c.apply(key, { instances: create(InstancesSchema, { min: 550, max: 550 }) });
  c.run(3_000);
  c.apply("b");
  c.ensure("b");
  c.run(2_000);
  expect(c.core.state.live).toBe(1_101);
  c.apply("d");
  const call = c.ensure("d");
  c.run(5_000);
  expect(c.granted(call).kind).toBe("ensured");
  check();
}, 60_000);

test("Lru: a look that was cut short is gone on with, whatever changes meanwhile", () => {
  const lru = new Lru();
  for (const id of ["a", "b", "c"]) lru.add(id, 0);
  lru.add("z", 2);
  expect([...lru.look(2)]).toEqual(["a", "b"]);
  lru.delete("b");
  lru.use("a", 0);
  expect([...lru.look(2)]).toEqual(["c", "a"]);
  expect([...lru.look(5)]).toEqual(["z"]);
  expect([...lru.look(5)]).toEqual(["c", "a", "z"]);
});

test("a stop that a dead node cannot confirm does not keep room from being made on others", () => {
  const c = new Cluster({
    nodes: 2,
    config: { nodeLostMs: 3_000, minResidenceMs: 100, placement: "spread" },
  });
  c.apply("a", atMostOne);
  c.ensure("a");
  c.run(200);
  const [dead, other] = ["n1", "n2"].sort((name) => (name === c.live()[0]!.node ? -1 : 1));
  c.nodes.get(dead!)!.reachable = false;
  c.operation("stop", "a", 1_000);
  c.run(5_000);
  const node = c.core.state.nodes.get(other!)!;
  node.capacity = { ...node.capacity!, maxInstances: 1 };
  for (const key of ["b", "d"]) {
    c.apply(key);
    c.ensure(key);
    c.run(5_000);
  }
  expect(c.live().map(({ tenant }) => tenant)).toContain("d");
});
