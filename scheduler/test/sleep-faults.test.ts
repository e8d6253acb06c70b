/** Sleep and wake, with agents that are away or say no. */
import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { toDuration } from "@warren/common/time";
import { IdlePolicySchema, InstanceMode, NodeHostSchema } from "@warren/proto/common";
import { atMostOne, Cluster } from "./cluster.ts";

const only = (c: Cluster) => [...c.core.state.instances.values()][0]!;

test("what was to be paged out while its node joined again goes down the ladder all the same", () => {
  const c = new Cluster();
  const node = c.nodes.get("n1")!;
  node.host = create(NodeHostSchema, { canPageOut: true });
  c.startAgent(node);
  const idle = create(IdlePolicySchema, {
    freezeAfter: toDuration(1_000),
    pageOutAfter: toDuration(3_000),
    stopAfter: toDuration(10_000),
  });
  c.apply("a", { idle });
  c.ensure("a");
  c.run(2_500);
  expect(only(c).mode).toBe(InstanceMode.FROZEN);
  c.killAgent(node);
  c.core.state.nodes.get("n1")!.confirmed = false; // its agent is about to join again
  c.run(1_000);
  c.startAgent(node);
  c.run(15_000);
  expect(c.live()).toEqual([]);
});

test("an idle at-most-one on a lost node is not asked to be quiet again and again", () => {
  const c = new Cluster({ config: { nodeLostMs: 3_000 } });
  c.apply("a", { ...atMostOne, idle: create(IdlePolicySchema, { freezeAfter: toDuration(8_000) }) });
  c.ensure("a");
  c.run(200);
  c.nodes.get("n1")!.reachable = false;
  c.run(6_000);
  const told = c.core.state.n;
  c.run(60_000);
  expect(c.core.state.n).toBe(told);
  c.nodes.get("n1")!.reachable = true;
  c.run(15_000);
  expect(only(c).mode).toBe(InstanceMode.FROZEN);
});

/** An Ensure of an instance whose freeze is on its way; the thaw that it asks for fails. */
function thawFails(): { c: Cluster; call: string; thaws: () => number } {
  const c = new Cluster();
  c.apply("a", { idle: create(IdlePolicySchema, { freezeAfter: toDuration(1_000) }) });
  c.ensure("a");
  c.run(1_000);
  while (!("command" in only(c).phase)) c.run(1);
  const call = c.ensure("a");
  c.nodes.get("n1")!.reachable = false;
  let thaws = 0;
  const step = c.core.step.bind(c.core);
  c.core.step = (input, at) => {
    const effects = step(input, at);
    thaws += effects.filter(({ type }) => type === "thaw").length;
    return effects;
  };
  return { c, call, thaws: () => thaws };
}

test("a thaw that failed behind a freeze is tried again, as long as somebody waits", () => {
  const { c, call } = thawFails();
  c.run(1_000);
  expect(c.outcomes.has(call)).toBe(false);
  c.nodes.get("n1")!.reachable = true;
  c.run(1_500);
  expect(c.granted(call).kind).toBe("ensured");
});

test("rule 9: an agent that cannot be reached is not asked to thaw at every tick", () => {
  const { c, thaws } = thawFails();
  c.run(2_000);
  expect(thaws()).toBeGreaterThan(1);
  expect(thaws()).toBeLessThanOrEqual(5);
});
