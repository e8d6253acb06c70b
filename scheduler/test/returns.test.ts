/** What comes back, or never does: lost nodes, late deletions, paused schedulers. */
import { expect, test } from "bun:test";
import { atMostOne, Cluster } from "./cluster.ts";

const soonLost = { nodeLostMs: 3_000 };

/** Tenants that gateways may send requests to. */
function routed(c: Cluster): string[] {
  return [...c.core.state.instances.values()]
    .filter(({ phase, lost }) => phase.kind === "ready" && !lost)
    .map(({ ref }) => ref.tenant);
}

/** One node with a ready instance of "a", and a gateway. */
function oneWarm(): Cluster {
  const c = new Cluster({ config: soonLost });
  c.addGateway("g");
  c.apply("a");
  c.ensure("a");
  c.run(200);
  return c;
}

test("a deletion that is late goes on, as it says", () => {
  const c = new Cluster();
  const g = c.addGateway("g");
  c.apply("a");
  c.ensure("a");
  c.run(200);
  c.touch(g, c.live()[0]!.id, 1); // an open stream: draining takes its time
  const call = c.operation("delete", "a", 1_000);
  c.run(10_000);
  expect(c.refused(call)).toMatchObject({ kind: "deadline" });
  expect(c.live()).toEqual([]);
  expect([c.core.state.tenants.has("a"), c.log.has("tenant.a")]).toEqual([false, false]);
});

test.each([false, true])(
  "a deleted tenant does not serve again when its lost node is back (new scheduler: %p)",
  (anew) => {
    const c = oneWarm();
    c.nodes.get("n1")!.reachable = false;
    c.run(5_000);
    const call = c.operation("delete", "a");
    c.run(100);
    expect(c.granted(call).kind).toBe("done");
    if (anew) c.restartScheduler();
    c.nodes.get("n1")!.reachable = true;
    c.run(5_000);
    expect(routed(c)).toEqual([]);
    expect(c.live()).toEqual([]);
  },
);

test("what was being stopped when its node was lost is not brought back to service", () => {
  const c = oneWarm();
  c.nodes.get("n1")!.reachable = false;
  const call = c.operation("stop", "a", 2_000);
  c.run(6_000);
  expect(c.refused(call)).toMatchObject({ kind: "deadline" });
  c.nodes.get("n1")!.reachable = true;
  c.run(3_000);
  expect(routed(c)).toEqual([]);
  expect(c.live()).toEqual([]);
});

test("rule 4: an operation whose last instance is lost with its node is answered then", () => {
  const c = oneWarm();
  c.nodes.get("n1")!.reachable = false;
  const call = c.operation("delete", "a", 20_000);
  c.run(10_000);
  expect(c.granted(call).kind).toBe("done");
});

test("a stop that a dead node cannot confirm does not keep others from being evicted", () => {
  const c = new Cluster({
    config: { ...soonLost, maxConcurrent: 2, minResidenceMs: 100, placement: "spread" },
  });
  c.addGateway("g");
  c.apply("a", atMostOne);
  c.apply("b");
  c.apply("x");
  c.ensure("a");
  c.run(200);
  c.addNode("n2");
  c.run(100);
  c.ensure("b");
  c.run(200);
  expect(c.nodes.get("n2")!.instances.size).toBe(1);
  c.nodes.get("n1")!.reachable = false;
  c.operation("stop", "a", 2_000);
  c.run(20_000);
  const call = c.ensure("x", 10_000);
  c.run(10_500);
  expect(c.granted(call).kind).toBe("ensured");
});

test("a placement on a node that the roster has lost does not hold its place for ever", () => {
  const c = new Cluster({ config: { ...soonLost, maxConcurrent: 1 } });
  c.run(100);
  c.storeUp = false;
  c.addNode("n2"); // its record is not persisted
  c.run(100);
  c.storeUp = true;
  c.nodes.get("n1")!.reachable = false;
  c.run(5_000);
  c.apply("a");
  c.ensure("a");
  c.run(500);
  expect(c.nodes.get("n2")!.instances.size).toBe(1);
  c.nodes.get("n2")!.reachable = false; // dies with the scheduler
  c.nodes.get("n1")!.reachable = true;
  c.restartScheduler();
  c.run(60_000);
  const call = c.ensure("a", 10_000);
  c.run(11_000);
  expect(c.granted(call).kind).toBe("ensured");
});

test("a tenant is not applied while it is being deleted: that would be lost", () => {
  const c = new Cluster();
  const g = c.addGateway("g");
  c.apply("a");
  c.ensure("a");
  c.run(200);
  c.touch(g, c.live()[0]!.id, 1);
  c.operation("delete", "a", 60_000);
  c.run(100);
  expect(c.refused(c.apply("a"))).toMatchObject({ kind: "deleting" });
  c.run(20_000);
  expect(c.granted(c.apply("a")).kind).toBe("done");
});

test("a scheduler that was itself stopped for a while does not give up all nodes", () => {
  const c = new Cluster({ nodes: 2 });
  c.apply("a");
  c.ensure("a");
  c.run(20_000);
  c.now += 15_000; // SIGSTOP and SIGCONT, a laptop's lid
  c.feed({ type: "tick" });
  expect(c.core.state.counts.nodes_lost ?? 0).toBe(0);
});

test("a late word of an agent that was started again since does not take its node out of use", () => {
  const c = oneWarm();
  const before = "n1-1";
  c.startAgent(c.nodes.get("n1")!);
  const report = { type: "report", node: "n1", incarnation: before, transitions: [], usages: [] } as const;
  const call = c.ask((call) => ({ ...report, call, fencedEpoch: c.epoch }));
  expect(c.refused(call).kind).toBe("join-again");
  expect(c.core.state.nodes.get("n1")!.confirmed).toBe(true);
});

test("rule 3: a stop asked of a new scheduler waits until gateways had the time to come back", () => {
  const c = new Cluster({ config: { gatewayReturnMs: 2_000 } });
  const g = c.addGateway("g");
  c.apply("a");
  c.ensure("a");
  c.run(200);
  const [instance] = c.live();
  g.connected = false;
  c.restartScheduler();
  const call = c.operation("stop", "a");
  c.run(1_000);
  expect(c.live()).toEqual([instance!]);
  // It comes back with a request in flight there, which may finish.
  c.touch(c.addGateway("g"), instance!.id, 1);
  c.run(2_000);
  expect(c.live()).toEqual([instance!]);
  c.touch(c.gateways.get("g")!, instance!.id, 0);
  c.run(3_000); // no longer than its drain
  expect(c.granted(call).kind).toBe("stopped");
});

test("a stop asked of a new scheduler without a gateway is delayed by no more than that", () => {
  const c = new Cluster({ config: { gatewayReturnMs: 2_000 } });
  c.apply("a");
  c.ensure("a");
  c.run(200);
  c.restartScheduler();
  const call = c.operation("stop", "a");
  c.run(2_200);
  expect(c.granted(call).kind).toBe("stopped");
});
