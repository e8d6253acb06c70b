/** Nodes that are lost in the middle of something, and what of it may still be told or believed. */
import { expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { fromDuration, toDuration } from "@warren/common/time";
import {
  EndpointSchema,
  ExitReason,
  IdlePolicySchema,
  InstanceSchema,
  InstanceState,
  UsageReportSchema,
  UsageSchema,
} from "@warren/proto/common";
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

test("of an instance that is given up no gateway is told, whatever one says of it", () => {
  const c = new Cluster({ config: { ...soonLost, quiesceMs: 60_000 } });
  const g = c.addGateway("g");
  c.apply("a", { idle: create(IdlePolicySchema, { freezeAfter: toDuration(1_000) }) });
  c.ensure("a");
  c.run(200);
  g.connected = false; // it confirms nothing
  c.run(1_500);
  const [instance] = c.core.state.instances.values();
  expect(instance!.phase).toMatchObject({ attempt: { to: { kind: "freeze" } } });
  c.nodes.get("n1")!.reachable = false;
  c.run(4_000);
  expect(instance!.lost).toBe(true);
  const entry = { instance: instance!.ref.id, idleMs: 0, inFlight: 1, seen: 0, sealed: false };
  expect(c.core.step({ type: "touch", source: "g", entries: [entry] }, c.at())).toEqual([]);
});

test("a start that is answered after its node was lost serves nobody", () => {
  const c = new Cluster({ config: soonLost });
  c.apply("a");
  c.behaviour.set("a", "hangs");
  const call = c.ensure("a", 60_000);
  c.run(100);
  c.nodes.get("n1")!.reachable = false;
  c.run(5_000);
  const [ref] = c.live();
  const running = create(InstanceSchema, {
    ref,
    state: InstanceState.READY,
    endpoint: create(EndpointSchema, { host: "127.0.0.1", port: 1 }),
  });
  const outcome = { kind: "answered", instance: running } as const;
  expect(c.core.step({ type: "started", instance: ref!.id, outcome }, c.at())).toEqual([]);
  expect(c.outcomes.has(call)).toBe(false);
});

test("what a lost node reports with its inventory is charged to it once", () => {
  const c = oneLost();
  const [ref] = c.live();
  const node = c.nodes.get("n1")!;
  node.reachable = true;
  const usage = create(UsageSchema, { wallMs: 1_000n, cpuUs: 10n, memoryBytes: 100n << 20n });
  c.join(node, [create(UsageReportSchema, { instance: ref, usage })]);
  expect(c.core.state.nodes.get("n1")!.charged.memory.mean).toBeGreaterThan(0);
  c.operation("stop", "a");
  c.run(1_000);
  expect(c.core.state.nodes.get("n1")!.charged.memory.mean).toBe(0);
});

/** What the core told of ends that nobody else can tell of. */
const ends = (c: Cluster) =>
  c.events.flatMap(({ id, payload }) =>
    payload.case === "transition"
      ? [{ id, ...payload.value, after: fromDuration(payload.value.after, -1) }]
      : [],
  );

const reboot = (c: Cluster) => {
  const node = c.nodes.get("n1")!;
  node.instances.clear();
  node.bootId = "another";
  node.reachable = true;
  node.incarnation++;
  c.join(node);
  c.run(1_000);
};

test("rule 8: what went with its node is told as EXITED, node-lost, with what it had used, once", () => {
  const c = oneLost();
  const [ref] = c.live();
  const { usage } = c.core.state.instances.get(ref!.id)!;
  expect(ends(c)).toEqual([]); // lost is no proof
  reboot(c);
  expect(ends(c)).toMatchObject([
    {
      id: `node-lost:${ref!.id}:1`,
      instance: ref,
      from: InstanceState.READY,
      to: InstanceState.EXITED,
      exit: { reason: ExitReason.NODE_LOST },
      ...(usage ? { usage } : {}),
    },
  ]);
  expect(ends(c)[0]!.after).toBeGreaterThan(4_000);
  reboot(c);
  expect(ends(c)).toHaveLength(1);
});

test("a node that reports is not forgotten, unless that is forced", () => {
  const c = new Cluster();
  c.apply("a");
  c.ensure("a");
  c.run(500);
  const forget = (force: boolean) => c.ask((call) => ({ type: "forget", call, node: "n1", force }));
  const refused = forget(false);
  expect(c.refused(refused)).toMatchObject({ kind: "node-reports", node: "n1" });
  expect(c.live()).toHaveLength(1);
  expect(c.granted(forget(true)).kind).toBe("forgotten");
  expect(c.core.state.instances.size).toBe(0);
});

test("rule 8: forgetting a node tells of what ran there; a scheduler that has not heard of it says so", () => {
  for (const anew of [false, true]) {
    const c = oneLost();
    const [ref] = c.live();
    if (anew) c.restartScheduler();
    c.run(100);
    c.ask((call) => ({ type: "forget", call, node: "n1", force: false }));
    c.run(100);
    expect(ends(c)).toMatchObject([
      {
        id: `node-lost:${ref!.id}:1`,
        from: anew ? InstanceState.UNSPECIFIED : InstanceState.READY,
        exit: { reason: ExitReason.NODE_LOST },
        after: anew ? -1 : expect.any(Number),
      },
    ]);
  }
});

test("a scheduler that dies with the proof in its hands tells the same event under the same id again", () => {
  const c = oneLost();
  c.storeUp = false; // nothing of it is persisted
  reboot(c);
  c.storeUp = true;
  c.restartScheduler();
  reboot(c);
  c.run(10_000);
  expect(new Set(ends(c).map(({ id }) => id)).size).toBe(1);
});
