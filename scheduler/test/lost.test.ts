/** Nodes that are lost in the middle of something, and what of it may still be told or believed. */
import { expect, test } from "bun:test";
import { Cluster } from "./cluster.ts";

const soonLost = { nodeLostMs: 3_000 };

test("a successor whose node is lost is placed elsewhere: the reload goes on", () => {
  const c = new Cluster({ nodes: 3, config: { ...soonLost, placement: "spread" } });
  c.apply("a");
  c.ensure("a");
  c.run(500);
  const [old] = c.live();
  c.behaviour.set("a", "hangs");
  const deadline = c.now + 60_000;
  const call = c.ask((call) => ({ type: "reload", call, tenant: "a", deadline }));
  while (c.live().length < 2) c.run(1);
  const next = c.live().find(({ id }) => id !== old!.id)!;
  c.behaviour.delete("a");
  c.nodes.get(next.node)!.reachable = false;
  c.run(10_000);
  expect(c.granted(call).kind).toBe("reloaded");
  expect([c.core.state.moves.size, c.core.state.successors.size]).toEqual([0, 0]);
  c.nodes.get(next.node)!.reachable = true;
  c.run(5_000);
  expect(c.live()).toHaveLength(1);
});

/** One node with a ready instance of "a", which is lost. */
function oneLost(): Cluster {
  const c = new Cluster({ config: soonLost });
  c.addGateway("g");
  c.apply("a");
  c.ensure("a");
  c.run(200);
  c.nodes.get("n1")!.reachable = false;
  c.run(5_000);
  return c;
}

test("a stop is a stop for what a lost node still runs, too: it does not serve again when the node is back", () => {
  const c = oneLost();
  const call = c.operation("stop", "a");
  c.run(100);
  expect(c.granted(call).kind).toBe("stopped");
  c.nodes.get("n1")!.reachable = true;
  c.run(5_000);
  expect(c.live()).toEqual([]);
});

test.each([false, true])(
  "a tenant made anew is not served by what a lost node runs of the one that was deleted (new scheduler: %p)",
  (anew) => {
    const c = oneLost();
    const [old] = c.live();
    c.operation("delete", "a");
    c.run(100);
    if (anew) c.restartScheduler();
    c.apply("a");
    c.nodes.get("n1")!.reachable = true;
    for (let i = 0; i < 300; i++) {
      c.run(10);
      const known = c.core.state.instances.get(old!.id);
      if (known && !known.lost) expect(known.phase.kind).not.toBe("ready");
    }
    expect(c.live()).toEqual([]);
  },
);
