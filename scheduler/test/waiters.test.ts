/** Rule 4: who waits for an instance hears of that, not of another one of its tenant. */
import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { toDuration } from "@warren/common/time";
import { InstanceMode, InstancesSchema, StopPolicySchema } from "@warren/proto/common";
import { Cluster } from "./cluster.ts";

test("rule 4: a second instance that fails to start does not turn away who waits for the first to wake", () => {
  const c = new Cluster();
  const g = c.addGateway("g");
  c.apply("a", { instances: create(InstancesSchema, { max: 2, targetConcurrency: 1 }) });
  c.ensure("a");
  c.run(200);
  const [first] = c.live();
  c.behaviour.set("a", "hangs");
  c.touch(g, first!.id, 2); // enough for two
  while (c.live().length < 2) c.run(1);
  c.touch(g, first!.id, 0);
  c.flip(c.nodes.get("n1")!, InstanceMode.FROZEN);
  const call = c.ensure("a");
  c.crash(c.live().find(({ id }) => id !== first!.id)!.id);
  c.run(100);
  expect(c.granted(call)).toMatchObject({ kind: "ensured", instance: first!.id });
});

test("rule 4: one that was to go and stays after all answers who waits meanwhile", () => {
  const c = new Cluster({ config: { scaleDownMs: 1_000, maxConcurrent: 2 } });
  const g = c.addGateway("g");
  c.apply("a", {
    instances: create(InstancesSchema, { max: 2, targetConcurrency: 1 }),
    stop: create(StopPolicySchema, { drain: toDuration(2_000) }),
  });
  c.ensure("a");
  c.run(200);
  const [first] = c.live();
  c.touch(g, first!.id, 2);
  c.run(500);
  const second = c.live().find(({ id }) => id !== first!.id)!;
  c.apply("b"); // waits for the place of the first, and is busy then
  c.touch(g, first!.id, 1);
  g.inFlight.set(second.id, 1);
  while (c.core.state.instances.get(second.id)!.phase.kind !== "draining") c.run(10);
  c.ensure("b");
  c.crash(first!.id);
  c.run(200);
  const [b] = c.live().filter(({ tenant }) => tenant === "b");
  c.touch(g, b!.id, 1);
  const call = c.ensure("a", 8_000);
  c.run(3_000);
  expect(c.granted(call)).toMatchObject({ kind: "ensured", instance: second.id });
});
