/** Emptying a node: what is used is moved, its successor ready first; what idles is stopped. */
import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { IdlePolicySchema, NodeChange } from "@warren/proto/common";
import { atMostOne, Cluster } from "./cluster.ts";

function drain(c: Cluster, node: string, within = 30_000, until = within): string {
  return c.ask((call) => ({ type: "drain", call, node, deadline: c.now + within, until: c.now + until }));
}

function four(options: ConstructorParameters<typeof Cluster>[0] = {}): {
  c: Cluster;
  from: string;
  to: string;
} {
  const c = new Cluster({ nodes: 1, ...options });
  c.addGateway("g");
  for (const key of ["a", "b", "c", "d"]) {
    c.apply(key);
    c.ensure(key);
  }
  c.run(1_000);
  c.addNode("n2");
  return { c, from: "n1", to: "n2" };
}

const on = (c: Cluster, node: string) => c.live().filter((ref) => ref.node === node);

test("each is replaced before it goes, and nothing new comes", () => {
  const { c, from, to } = four();
  const call = drain(c, from);
  for (let i = 0; i < 200; i++) {
    c.run(10);
    for (const key of ["a", "b", "c", "d"]) {
      const ready = [...c.core.state.instances.values()].filter(
        ({ ref, phase }) => ref.tenant === key && phase.kind === "ready",
      );
      expect(ready.length).toBeGreaterThanOrEqual(1);
    }
  }
  expect(c.granted(call)).toMatchObject({ kind: "drained", moved: 4, stopped: 0 });
  expect(on(c, from)).toEqual([]);
  expect(on(c, to)).toHaveLength(4);
  expect(c.core.state.nodes.get(from)!.cordoned).toBe(true);
  expect(
    c.events.some(({ payload }) => payload.case === "node" && payload.value.change === NodeChange.DRAINED),
  ).toBe(true);
});

test("what has not been used for a while is stopped: the next request starts it elsewhere", () => {
  const { c, from, to } = four();
  c.run(120_000);
  const call = drain(c, from);
  c.run(5_000);
  expect(c.granted(call)).toMatchObject({ moved: 0, stopped: 4 });
  expect(on(c, to)).toEqual([]);
  const next = c.ensure("a");
  c.run(500);
  expect(c.granted(next)).toMatchObject({ cold: true });
  expect(on(c, to)).toHaveLength(1);
});

test("without a place elsewhere they serve on until the drain's deadline, and are stopped then", () => {
  const c = new Cluster({ nodes: 1 });
  c.addGateway("g");
  c.apply("a", { idle: create(IdlePolicySchema, { keepWarm: true }) });
  c.ensure("a");
  c.run(500);
  const call = drain(c, "n1", 30_000, 5_000);
  c.run(4_000);
  expect(c.live()).toHaveLength(1);
  c.run(10_000);
  expect(c.granted(call)).toMatchObject({ kind: "drained", stopped: 1 });
  expect(c.live()).toEqual([]);
});

test("rule 4: a caller whose deadline comes first is told so; the drain goes on", () => {
  const { c, from } = four();
  const busy = on(c, from)[0]!;
  c.touch(c.gateways.get("g")!, busy.id, 1);
  const call = drain(c, from, 1_000, 60_000);
  c.run(2_000);
  expect(c.refused(call).kind).toBe("late");
  c.touch(c.gateways.get("g")!, busy.id, 0);
  c.run(20_000);
  expect(on(c, from)).toEqual([]);
});

test("asked for again with a sooner deadline, it ends by that", () => {
  const c = new Cluster({ nodes: 1 });
  c.addGateway("g");
  c.apply("a", { idle: create(IdlePolicySchema, { keepWarm: true }) });
  c.ensure("a");
  c.run(500);
  const calls = [drain(c, "n1", 600_000, 600_000), drain(c, "n1", 30_000, 2_000)];
  c.run(10_000);
  for (const call of calls) expect(c.granted(call)).toMatchObject({ kind: "drained", stopped: 1 });
});

test("uncordoned, it is given up", () => {
  const c = new Cluster({ nodes: 1 });
  c.addGateway("g");
  c.apply("a");
  c.ensure("a");
  c.run(500);
  const call = drain(c, "n1");
  c.run(100);
  c.ask((other) => ({ type: "cordon", call: other, node: "n1", cordoned: false }));
  expect(c.refused(call).kind).toBe("drain-cancelled");
  c.run(30_000);
  expect(c.live()).toHaveLength(1);
});

test("rule 2: at-most-one goes first", () => {
  const c = new Cluster({ nodes: 1 });
  c.addGateway("g");
  c.apply("a", atMostOne);
  c.ensure("a");
  c.run(500);
  c.addNode("n2");
  const call = drain(c, "n1");
  c.run(10_000);
  expect(c.granted(call).kind).toBe("drained");
  expect(on(c, "n2")).toHaveLength(1);
});

test("a drained node whose successor fails keeps the old one, and tries again", () => {
  const { c, from } = four();
  c.behaviour.set("a", "crashes");
  const call = drain(c, from, 60_000);
  c.run(5_000);
  expect(on(c, from).map(({ tenant }) => tenant)).toEqual(["a"]);
  c.behaviour.delete("a");
  c.run(5_000);
  expect(c.granted(call).kind).toBe("drained");
});

test("an unknown node is refused by name", () => {
  const c = new Cluster();
  expect(c.refused(drain(c, "nobody"))).toMatchObject({ kind: "no-node-of-name", node: "nobody" });
});

test("rule 2: what has just replaced another is moved on only when that is gone: never three in a slot", () => {
  const c = new Cluster({ nodes: 1, config: { drainMs: 3_000 } });
  const g = c.addGateway("g");
  c.apply("a");
  c.ensure("a");
  c.run(500);
  const old = c.live()[0]!;
  c.touch(g, old.id, 1); // it takes its whole drain time to go
  c.apply("a", { env: { VERSION: "2" } });
  c.run(300);
  expect(c.live()).toHaveLength(2);
  c.addNode("n2");
  const call = drain(c, "n1");
  for (let i = 0; i < 200; i++) {
    c.run(10);
    expect(c.live().length).toBeLessThanOrEqual(2);
  }
  c.touch(g, old.id, 0);
  c.run(10_000);
  expect(c.granted(call).kind).toBe("drained");
  expect(on(c, "n2")).toHaveLength(1);
});

test("a restart that no node could take is refused, and what serves goes on", () => {
  const c = new Cluster();
  c.addGateway("g");
  c.apply("a");
  c.ensure("a");
  c.run(500);
  const before = c.live();
  const instance = before[0]!;
  c.touch(c.gateways.get("g")!, instance.id, 1);
  drain(c, "n1", 60_000);
  const call = c.operation("restart", "a");
  c.run(2_000);
  expect(c.refused(call)).toMatchObject({ kind: "no-node", refused: { cordoned: 1 } });
  expect(c.live()).toEqual(before);
});

test("a restart takes the room of the instance that it ends", () => {
  const c = new Cluster();
  const node = c.core.state.nodes.get("n1")!;
  node.capacity = { ...node.capacity!, maxInstances: 1 };
  c.apply("a");
  c.ensure("a");
  c.run(500);
  const [before] = c.live();
  const call = c.operation("restart", "a");
  c.run(2_000);
  expect(c.granted(call).kind).toBe("ensured");
  expect(c.live()[0]!.id).not.toBe(before!.id);
});

test("a drain of at-most-one where nobody else could take it: it serves until the drain's deadline", () => {
  const c = new Cluster();
  c.addGateway("g");
  c.apply("a", atMostOne);
  c.ensure("a");
  c.run(500);
  const [before] = c.live();
  drain(c, "n1", 5_000);
  c.run(4_000);
  expect(c.live()).toEqual([before!]);
  c.run(5_000);
  expect(c.live()).toEqual([]);
});
