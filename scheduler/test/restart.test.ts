/** Restart policies, back-off, crash loops. */
import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { toDuration } from "@warren/common/time";
import {
  ExitReason,
  IdlePolicySchema,
  InstanceState,
  InstancesSchema,
  RestartPolicy,
} from "@warren/proto/common";
import { explain } from "../src/core/explain.ts";
import { toRpcError } from "../src/refusals.ts";
import { tenantView } from "../src/services/views.ts";
import { Cluster } from "./cluster.ts";

const { NEVER, ON_FAILURE, ALWAYS } = RestartPolicy;

function warm(
  restart: RestartPolicy,
  more = {},
  options: ConstructorParameters<typeof Cluster>[0] = {},
): Cluster {
  const c = new Cluster(options);
  c.apply("a", { restart, ...more });
  c.ensure("a");
  c.run(200);
  return c;
}

/** Its process ends by itself with code 0. */
function leave(c: Cluster): void {
  const ref = c.live()[0]!;
  c.nodes.get(ref.node)!.instances.delete(ref.id);
  c.transition(ref, { to: InstanceState.EXITED, exit: { reason: ExitReason.EXITED_CLEAN, code: 0 } });
}

describe("without anybody asking", () => {
  test.each([
    ["never", NEVER, 0, 0],
    ["on-failure", ON_FAILURE, 1, 0],
    ["always", ALWAYS, 1, 1],
  ])("policy %s", (_, policy, afterCrash, afterClean) => {
    const crashed = warm(policy);
    const first = crashed.live()[0]!;
    crashed.crash(first.id);
    crashed.run(500);
    expect(crashed.live()).toHaveLength(afterCrash);
    if (afterCrash) expect(crashed.live()[0]!.id).not.toBe(first.id);
    const left = warm(policy);
    leave(left);
    left.run(500);
    expect(left.live()).toHaveLength(afterClean);
  });

  test("what somebody stopped, or nobody used, stays away", () => {
    const c = warm(ALWAYS);
    c.operation("stop", "a");
    c.run(60_000);
    expect(c.live()).toEqual([]);
    const idle = warm(ALWAYS, { idle: create(IdlePolicySchema, { stopAfter: toDuration(1_000) }) });
    idle.run(60_000);
    expect(idle.live()).toEqual([]);
  });

  test("the spec's minimum is there from the start, after a crash, and after a stop only once it is used", () => {
    const c = new Cluster({ nodes: 2 });
    c.apply("a", { instances: create(InstancesSchema, { min: 2, max: 3 }) });
    c.run(500);
    expect(
      c
        .live()
        .map(({ slot }) => slot)
        .sort(),
    ).toEqual([0, 1]);
    c.crash(c.live()[0]!.id);
    c.run(500);
    expect(c.live()).toHaveLength(2);
    c.operation("stop", "a");
    c.run(30_000);
    expect(c.live()).toEqual([]);
    c.ensure("a");
    c.run(500);
    expect(c.live()).toHaveLength(2);
  });

  test("with the scheduler down nothing restarts, and a new one knows what is owed", () => {
    const c = warm(ALWAYS);
    const ref = c.live()[0]!;
    c.storeUp = false; // the placement that is owed cannot be persisted, as if it had died in between
    c.crash(ref.id);
    c.run(5);
    c.storeUp = true;
    c.restartScheduler();
    c.run(2_000);
    expect(c.live()).toHaveLength(1);
    expect([...c.log.keys()].filter((key) => key.startsWith("placement."))).toEqual([
      `placement.${c.live()[0]!.id}`,
    ]);
  });

  test("what is owed on a node that is forgotten does not bring that node back in a new leader's roster", () => {
    const c = warm(ALWAYS, {}, { nodes: 1 });
    const ref = c.live()[0]!;
    c.behaviour.set("a", "crashes");
    c.crash(ref.id);
    c.run(100); // a crash loop: the last placement is owed a successor
    c.killAgent(c.nodes.get("n1")!);
    c.ask((call) => ({ type: "forget", call, node: "n1", force: true }));
    c.run(20_000);
    c.nodes.delete("n1");
    c.restartScheduler();
    c.run(100);
    expect([...c.core.state.nodes.keys()]).toEqual([]);
  });

  test("on a lost node: elsewhere at once by policy, else at the next request", () => {
    const soon = { nodes: 2, config: { nodeLateMs: 1_000, nodeLostMs: 2_000 } };
    for (const [policy, live] of [
      [NEVER, 0],
      [ON_FAILURE, 1],
    ] as const) {
      const c = warm(policy, {}, soon);
      const node = c.nodes.get(c.live()[0]!.node)!;
      node.reachable = false;
      c.run(5_000);
      expect(c.live().filter(({ node: name }) => name !== node.name)).toHaveLength(live);
    }
  });
});

describe("back-off", () => {
  test("the first retry is at once, later ones wait longer and longer, none longer than the most", () => {
    const c = warm(ALWAYS);
    const gaps: number[] = [];
    for (let i = 0; i < 8; i++) {
      const ref = c.live()[0]!;
      const before = c.now;
      c.crash(ref.id);
      while (c.live().length === 0) c.run(10);
      gaps.push(c.now - before);
      c.run(300);
    }
    expect(gaps[0]!).toBeLessThan(100);
    expect(gaps[1]!).toBeGreaterThan(200);
    expect(Math.max(...gaps)).toBeLessThanOrEqual(60_100);
    // The fifth within the window is a crash loop.
    expect(gaps[4]!).toBeGreaterThan(gaps[1]!);
    expect(c.core.state.counts.crash_loops).toBeGreaterThan(0);
    const told = c.events.flatMap(({ payload }) =>
      payload.case === "backoff" ? [payload.value.crashLoop] : [],
    );
    expect(told).toContain(true);
    expect(told[0]).toBe(false);
  });

  test("serving for long forgives, yet failing often within the window is a loop all the same", () => {
    const c = warm(
      ALWAYS,
      {},
      { config: { minUptimeMs: 5_000, crashLoopFailures: 3, crashLoopWindowMs: 60_000 } },
    );
    for (let i = 0; i < 2; i++) {
      c.run(6_000);
      c.crash(c.live()[0]!.id);
      c.run(300);
      expect(c.live()).toHaveLength(1);
    }
    c.run(6_000);
    c.crash(c.live()[0]!.id);
    c.run(2_000);
    expect(c.live()).toEqual([]);
    c.feed({ type: "clear-backoff", tenant: "a" });
    c.run(300);
    expect(c.live()).toHaveLength(1);
  });

  test("rule 6: one tenant's failing delays no other's restart", () => {
    const c = warm(ALWAYS);
    c.apply("b", { restart: ALWAYS });
    c.behaviour.set("a", "crashes");
    c.crash(c.live()[0]!.id);
    c.run(5_000);
    c.ensure("b");
    c.run(300);
    const b = c.live().find(({ tenant }) => tenant === "b")!;
    c.crash(b.id);
    c.run(100);
    expect(c.live().filter(({ tenant }) => tenant === "b")).toHaveLength(1);
  });

  test("a crash loop is told with its last output: to callers, in Explain and of the tenant", () => {
    const c = warm(ALWAYS, {}, { config: { crashLoopFailures: 2 } });
    for (let i = 0; i < 2; i++) {
      const ref = c.live()[0]!;
      c.nodes.get(ref.node)!.instances.delete(ref.id);
      const lastOutput = ["starting", "no database", ""];
      c.transition(ref, {
        to: InstanceState.EXITED,
        exit: { reason: ExitReason.CRASHED, code: 3, lastOutput },
      });
      if (i === 0) c.run(300);
    }
    const { state } = c.core;
    const tenant = state.tenants.get("a")!;
    expect(toRpcError(c.refused(c.ensure("a"))).rawMessage).toContain("no database");
    expect(explain(state, c.config, "a", c.at())).toContain("It said: no database");
    expect(tenantView(state, c.config, tenant, c.at()).backoff).toMatchObject({
      crashLoop: true,
      failures: 2,
      last: "crashed with code 3",
      lastOutput: ["starting", "no database", ""],
    });
    c.feed({ type: "clear-backoff", tenant: "a" });
    expect(tenantView(state, c.config, tenant, c.at()).backoff).toBeUndefined();
  });
});
