/** What the simulator (test/sim) found, each as the few steps that it takes. */
import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { toDuration } from "@warren/common/time";
import { IdlePolicySchema, InstanceMode, InstanceState, StopPolicySchema } from "@warren/proto/common";
import { isLeaving } from "../src/core/model.ts";
import { Cluster } from "./cluster.ts";

/** Feeds the core and looks at its effects: a store that takes its time is not in the model. */
function step(c: Cluster, input: Parameters<Cluster["core"]["step"]>[0]) {
  return c.core.step(input, c.at());
}

test("rule 4: a delete is answered by its deadline, however long the store takes it", () => {
  const c = new Cluster();
  c.apply("a");
  const deadline = c.now + 100;
  const [persist] = step(c, { type: "operation", call: "x", kind: "delete", tenant: "a", deadline });
  expect(persist).toMatchObject({ type: "persist", write: { kind: "tenant-gone", key: "a" } });
  c.now += 200;
  expect(step(c, { type: "tick" })).toMatchObject([
    { type: "refuse", call: "x", refusal: { kind: "deadline" } },
  ]);
  expect(step(c, { type: "delete-durable", tenant: "a" })).toEqual([]);
  expect(c.core.state.tenants.has("a")).toBe(false);
  expect(c.core.state.operations.size).toBe(0);
});

test("a second delete joins the one that the store is taking", () => {
  const c = new Cluster();
  c.apply("a");
  const deadline = c.now + 1_000;
  step(c, { type: "operation", call: "x", kind: "delete", tenant: "a", deadline });
  expect(step(c, { type: "operation", call: "y", kind: "delete", tenant: "a", deadline })).toEqual([]);
  expect(step(c, { type: "delete-durable", tenant: "a" })).toMatchObject([
    { type: "answer", call: "x" },
    { type: "answer", call: "y" },
  ]);
});

test("a cordon is answered once the next leader would know it", () => {
  const c = new Cluster();
  const cordoned = () => c.core.state.nodes.get("n1")!.cordoned;
  const effects = step(c, { type: "cordon", call: "x", node: "n1", cordoned: true });
  const persist = effects.find(({ type }) => type === "persist");
  expect(persist).toMatchObject({ type: "persist", durable: { type: "cordon-durable", call: "x" } });
  expect(cordoned()).toBe(true);
  if (persist?.type !== "persist") throw new Error("not persisted");
  expect(step(c, persist.durable!)).toMatchObject([{ type: "answer", call: "x" }]);
  const refused = step(c, persist.failed!).find(({ type }) => type === "refuse");
  expect(refused).toMatchObject({ call: "x", refusal: { kind: "store-down" } });
  expect(cordoned()).toBe(false);
});

test("rules 1 and 2: what was placed before its node was booted anew is not started on it", () => {
  // Its placement is in the log before the node's new boot: a leader that finds only the one would take the instance for
  // gone with the old boot, while it lives on the new one.
  const c = new Cluster();
  c.apply("a");
  const placed = step(c, { type: "ensure", call: "x", tenant: "a", deadline: c.now + 10_000 });
  const persist = placed.find((effect) => effect.type === "persist");
  if (persist?.type !== "persist") throw new Error("not persisted");
  const node = c.nodes.get("n1")!;
  c.killAgent(node);
  c.run(c.config.nodeLateMs + 500); // another boot is refused while the first may be alive
  node.bootId = "boot2";
  c.startAgent(node);
  expect(c.core.state.nodes.get("n1")).toMatchObject({ bootId: "boot2", confirmed: true });
  const then = step(c, persist.durable!);
  expect(then.some(({ type }) => type === "start")).toBe(false);
  expect(then).toContainEqual(
    expect.objectContaining({ write: expect.objectContaining({ kind: "placement-gone" }) }),
  );
});

test("a drain ends at its time, though the instance was to be looked at before", () => {
  const c = new Cluster();
  const g = c.addGateway("g");
  c.apply("a", {
    idle: create(IdlePolicySchema, { freezeAfter: toDuration(300) }),
    stop: create(StopPolicySchema, { drain: toDuration(2_000) }),
  });
  c.ensure("a");
  c.run(200);
  g.connected = false; // it watches, but does not confirm
  const call = c.operation("stop", "a");
  c.run(1_500);
  expect(c.live()).toHaveLength(1);
  c.run(1_000);
  expect(c.live()).toHaveLength(0);
  expect(c.granted(call).kind).toBe("stopped");
});

test.each(["sent again", "of a node that joins again"])(
  "an inventory %s does not bury what is on its way to the node",
  (how) => {
    const c = new Cluster();
    c.apply("a");
    const call = c.ensure("a");
    while (!c.starts.has("a")) c.run(0.1);
    expect(c.live()).toHaveLength(0);
    const node = c.nodes.get("n1")!;
    if (how === "sent again") c.report(node, true);
    else c.join(node);
    expect(c.core.state.live).toBe(1);
    c.run(500);
    expect(c.granted(call).kind).toBe("ensured");
    expect(c.starts.get("a")).toBe(1);
    expect(c.live().map(({ id }) => id)).toEqual([...c.core.state.instances.keys()]);
  },
);

test("one that its agent does not know when it is to be thawed is stopped, and told nobody as serving", () => {
  const c = new Cluster();
  c.apply("a");
  c.ensure("a");
  c.run(500);
  c.flip(c.nodes.get("n1")!, InstanceMode.FROZEN);
  const deadline = c.now + 1_000;
  const thaw = step(c, { type: "ensure", call: "x", tenant: "a", deadline }).find(
    ({ type }) => type === "thaw",
  );
  if (thaw?.type !== "thaw") throw new Error("not thawed");
  const { ref, command } = thaw;
  const effects = step(c, { type: "slept", instance: ref.id, command, outcome: { kind: "gone" } });
  expect(effects.map(({ type }) => type)).toContain("stop");
  const named = effects.flatMap((effect) => (effect.type === "endpoints" ? effect.message.endpoints : []));
  expect(named).toEqual([]);
  expect(c.core.state.live).toBe(1); // until its agent has said that nothing is left
});

test("rule 2: a reload while a drain moves an instance makes no third one in its slot", () => {
  const c = new Cluster({ nodes: 3 });
  c.apply("a");
  c.ensure("a");
  c.run(500);
  const [first] = c.live();
  const deadline = c.now + 30_000;
  c.ask((call) => ({ type: "drain", call, node: first!.node, deadline, until: deadline }));
  while (c.live().length < 2) c.run(0.5);
  const call = c.ask((call) => ({ type: "reload", call, tenant: "a", deadline }));
  for (let i = 0; i < 400; i++) {
    const leaving = [...c.core.state.instances.values()].filter(isLeaving).map(({ ref }) => ref.id);
    expect(c.live().filter(({ id }) => !leaving.includes(id)).length).toBeLessThanOrEqual(2);
    c.run(5);
  }
  expect(c.granted(call).kind).toBe("reloaded");
  c.run(10_000);
  expect(c.live()).toHaveLength(1);
});

test("rule 3: an instance whose freeze was not answered is told as frozen: a late freeze is undone by whoever needs it", () => {
  const c = new Cluster();
  c.apply("a", { idle: create(IdlePolicySchema, { freezeAfter: toDuration(1_000) }) });
  c.ensure("a");
  c.run(500);
  c.now += 1_000;
  const freeze = step(c, { type: "tick" }).find(({ type }) => type === "freeze");
  if (freeze?.type !== "freeze") throw new Error("not frozen");
  const { ref, command } = freeze;
  const outcome = { kind: "unknown", message: "no answer" } as const;
  const effects = step(c, { type: "slept", instance: ref.id, command, outcome });
  const modes = effects
    .flatMap((one) => (one.type === "endpoints" ? one.message.endpoints : []))
    .map((e) => e.mode);
  expect(modes).toEqual([InstanceMode.FROZEN]);
  // Nor does the late news that it had become ready say that it is awake.
  c.transition(ref, {
    to: InstanceState.READY,
    toMode: InstanceMode.ACTIVE,
    endpoint: { host: "127.0.0.1", port: 1 },
  });
  expect(c.core.state.instances.get(ref.id)?.mode).toBe(InstanceMode.FROZEN);
  const asked = step(c, { type: "ensure", call: "x", tenant: "a", deadline: c.now + 1_000 });
  expect(asked.map(({ type }) => type)).toEqual(["thaw"]);
});
