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
