/** What a spec needs of a node's isolation, and what happens where no node has it. */
import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { Isolation, LimitsSchema, NodeHostSchema, type TenantSpec } from "@warren/proto/common";
import { explain } from "../src/core/explain.ts";
import { toRpcError } from "../src/refusals.ts";
import { nodeView } from "../src/services/views.ts";
import { Cluster } from "./cluster.ts";

const { NONE, USER, CGROUP, NAMESPACE } = Isolation;

type Limits = Omit<Partial<NonNullable<TenantSpec["limits"]>>, "$typeName" | "$unknown">;
const limits = (some: Limits) => ({ limits: create(LimitsSchema, some) });
const isolation = (rung: Isolation) => ({ isolation: rung });

describe("a node must have the rung that the spec needs", () => {
  test.each([
    ["nothing asked", {}, NONE],
    ["none asked", isolation(NONE), NONE],
    ["a rung asked", isolation(NAMESPACE), NAMESPACE],
    ["memory limited", limits({ memoryBytes: 1n << 28n }), CGROUP],
    ["CPU limited", limits({ cpuMillis: 500 }), CGROUP],
    ["processes limited", limits({ pids: 100 }), USER],
    ["open files limited", limits({ openFiles: 100 }), USER],
    ["disk limited: looked at, held by no rung", limits({ diskBytes: 1n << 30n }), NONE],
    ["limits above the rung asked", { ...isolation(USER), ...limits({ memoryBytes: 1n << 28n }) }, CGROUP],
    ["limits below the rung asked", { ...isolation(NAMESPACE), ...limits({ pids: 10 }) }, NAMESPACE],
  ] as const)("%s", (_, spec, needed) => {
    for (const highest of [NONE, USER, CGROUP, NAMESPACE]) {
      const c = new Cluster({ nodes: 0 });
      c.addNode("n1", { isolation: [NONE, USER, CGROUP, NAMESPACE].filter((rung) => rung <= highest) });
      c.apply("a", spec);
      const call = c.ensure("a");
      c.run(500);
      if (highest >= needed) expect(c.granted(call).kind).toBe("ensured");
      else expect(c.refused(call)).toMatchObject({ kind: "no-node", transient: false });
    }
  });

  test("it goes where the rung is, however loaded that node is", () => {
    const c = new Cluster({ nodes: 3 });
    c.addNode("strict", { isolation: [NONE, USER, CGROUP] });
    for (const key of ["a", "b", "c"]) {
      c.apply(key, limits({ memoryBytes: 1n << 28n }));
      c.ensure(key);
      c.run(500);
    }
    expect(c.nodes.get("strict")!.instances.size).toBe(3);
  });
});

describe("where no node has it", () => {
  test("the caller is told at once, and Explain says the same: which rung, and what asks for it", () => {
    const c = new Cluster({ nodes: 2 });
    c.apply("a", isolation(NAMESPACE));
    c.apply("b", limits({ memoryBytes: 1n << 28n }));
    for (const [key, reason] of [
      ["a", "isolation rung namespace missing"],
      ["b", "isolation rung cgroup missing (its limits need it)"],
    ] as const) {
      const refusal = c.refused(c.ensure(key));
      expect(refusal).toMatchObject({ kind: "no-node", refused: { [reason]: 2 }, transient: false });
      const sentence = `no node can take tenant ${key}: ${reason}: 2 nodes`;
      expect(toRpcError(refusal).rawMessage).toBe(sentence);
      expect(explain(c.core.state, c.config, key, c.at())).toContain(`${reason}: 2 nodes`);
    }
  });

  test("rule 4: with a node that may yet come back, the caller is told by its deadline", () => {
    const c = new Cluster({ nodes: 2 });
    c.ask((call) => ({ type: "cordon", call, node: "n1", cordoned: true }));
    c.apply("a", isolation(CGROUP));
    const call = c.ensure("a", 1_000);
    c.run(900);
    expect(c.outcomes.has(call)).toBe(false);
    c.run(200);
    expect(toRpcError(c.refused(call)).rawMessage).toBe(
      "no node can take tenant a: cordoned: 1 node, isolation rung cgroup missing: 1 node",
    );
  });

  test("a spec that needs less is tried anew", () => {
    const c = new Cluster();
    c.apply("a", isolation(CGROUP));
    c.refused(c.ensure("a"));
    c.apply("a");
    expect(explain(c.core.state, c.config, "a", c.at())).toContain("Nobody has asked for it since");
    const call = c.ensure("a");
    c.run(500);
    expect(c.granted(call).kind).toBe("ensured");
  });
});

test("what a node's host can and cannot do is shown, and renewed when it joins again", () => {
  const c = new Cluster({ nodes: 0 });
  const before = create(NodeHostSchema, { kind: "none", missing: ["no limits: no writable cgroup v2"] });
  const node = c.addNode("n1", { host: before });
  const shown = () => nodeView(c.config.nodeLateMs, c.core.state.nodes.get("n1")!, c.at());
  expect(shown()).toMatchObject({ isolation: [], host: before });
  node.host = create(NodeHostSchema, { kind: "cgroup-v2", canPageOut: true });
  node.isolation = [NONE, USER];
  c.killAgent(node);
  c.startAgent(node);
  expect(shown()).toMatchObject({ isolation: [NONE, USER], host: node.host });
});
