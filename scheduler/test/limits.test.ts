/** Limits on use: what the ledger finds reached is held, until its period is over or the spec allows more. */
import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { Code, detailOf } from "@warren/common/rpc/errors";
import {
  ExitReason,
  InstancesSchema,
  LimitReachedSchema,
  RestartPolicy,
  UsageLimitSchema,
  UsageMeter,
  UsagePeriod,
} from "@warren/proto/common";
import { explain } from "../src/core/explain.ts";
import type { ReachedLimit } from "../src/core/model.ts";
import { toRpcError } from "../src/refusals.ts";
import { Cluster } from "./cluster.ts";

const limitOf = (max: bigint, period = UsagePeriod.DAY) =>
  create(UsageLimitSchema, { meter: UsageMeter.CPU_SECONDS, period, max });

function limited(max: bigint, more = {}): Cluster {
  const c = new Cluster({ nodes: 2 });
  c.addGateway("g1");
  c.apply("a", { usageLimits: [limitOf(max)], ...more });
  c.ensure("a");
  c.run(200);
  expect(c.live()).toHaveLength(1);
  return c;
}

function reach(c: Cluster, used: bigint, forMs: number, more: Partial<ReachedLimit> = {}): void {
  c.feed({
    type: "limits-reached",
    reached: [{ tenant: "a", limit: limitOf(100n), used, until: c.at().wall + forMs, ...more }],
  });
}

const limitEvents = (c: Cluster) =>
  c.events.flatMap(({ payload }) => (payload.case === "limit" ? [payload.value.reached] : []));

describe("a limit that is reached", () => {
  test("stops what runs, with the reason, refuses what waits and what comes, and says until when", () => {
    const c = limited(100n);
    reach(c, 100n, 3_600_000);
    c.run(10_000);
    expect(c.live()).toEqual([]);
    const refusal = c.refused(c.ensure("a"));
    expect(refusal).toMatchObject({ kind: "limit", used: 100n });
    const error = toRpcError(refusal);
    expect(error.code).toBe(Code.ResourceExhausted);
    expect(error.message).toContain("100 of 100 cpu-seconds a day are used");
    expect(detailOf(error, LimitReachedSchema)).toMatchObject({ used: 100n, limit: { max: 100n } });
    expect(explain(c.core.state, c.config, "a", c.at())).toContain("It has reached a limit on its use");
    expect(limitEvents(c)).toEqual([true]);
    expect(c.core.state.tenants.get("a")).toMatchObject({
      failures: 0,
      lastExit: { reason: ExitReason.LIMIT },
    });
  });

  test("a request in flight may finish within the drain's time (rule 3)", () => {
    const c = limited(100n);
    const [gateway] = c.gateways.values();
    const [ref] = c.live();
    c.touch(gateway!, ref!.id, 1);
    reach(c, 100n, 3_600_000);
    c.run(1_000);
    expect(c.live()).toHaveLength(1);
    c.touch(gateway!, ref!.id, 0);
    c.run(c.config.drainMs);
    expect(c.live()).toEqual([]);
  });

  test("whoever waits for a start is told at once", () => {
    const c = new Cluster({ nodes: 1 });
    c.behaviour.set("a", "hangs");
    c.apply("a", { usageLimits: [limitOf(100n)] });
    const call = c.ensure("a");
    c.run(100);
    reach(c, 100n, 60_000);
    expect(c.refused(call)).toMatchObject({ kind: "limit" });
    c.run(60_000);
    expect(c.live()).toEqual([]);
  });

  test("is over with its period, and what is to run without anybody asking runs again", () => {
    const c = limited(100n, { instances: create(InstancesSchema, { min: 1 }) });
    reach(c, 100n, 60_000);
    c.run(30_000);
    expect(c.live()).toEqual([]);
    c.run(31_000);
    expect(c.live()).toHaveLength(1);
    expect(limitEvents(c)).toEqual([true, false]);
  });

  test("restarts by policy wait for it as well", () => {
    const c = limited(100n, { restart: RestartPolicy.ALWAYS });
    reach(c, 100n, 60_000);
    c.run(59_000);
    expect(c.live()).toEqual([]);
    expect(c.core.state.tenants.get("a")!.owed).toBeUndefined();
  });

  test("is lifted by a spec that allows more, not by one that does not", () => {
    const c = limited(100n);
    reach(c, 120n, 3_600_000);
    c.run(10_000);
    c.apply("a", { usageLimits: [limitOf(120n)] });
    expect(c.refused(c.ensure("a"))).toMatchObject({ kind: "limit" });
    c.apply("a", { usageLimits: [limitOf(121n)] });
    const call = c.ensure("a");
    c.run(200);
    c.granted(call);
  });

  test("is not lifted by a ledger that does not speak of it any more", () => {
    const c = limited(100n);
    reach(c, 100n, 3_600_000);
    c.run(10_000);
    c.feed({ type: "limits-reached", reached: [] });
    expect(c.refused(c.ensure("a"))).toMatchObject({ kind: "limit" });
  });

  test("told again and again it is one event, and what a node brings back is stopped too", () => {
    const c = limited(100n);
    const node = c.nodes.get(c.live()[0]!.node)!;
    node.reachable = false;
    reach(c, 100n, 3_600_000);
    c.run(15_000);
    node.reachable = true;
    c.run(5_000);
    for (let i = 0; i < 3; i++) reach(c, 100n + BigInt(i), 3_600_000 - 20_000);
    c.run(10_000);
    expect(c.live()).toEqual([]);
    expect(limitEvents(c).length).toBeLessThanOrEqual(2); // until was given anew once
  });

  test("is held by the next leader, the ledger away or not, until its period is over; and told once", () => {
    const c = limited(100n, { instances: create(InstancesSchema, { min: 1 }) });
    reach(c, 100n, 60_000);
    c.run(10_000);
    c.restartScheduler();
    c.run(10_000);
    expect(c.refused(c.ensure("a"))).toMatchObject({ kind: "limit", used: 100n });
    expect(c.live()).toEqual([]);
    expect(limitEvents(c)).toEqual([true]);
    c.run(41_000);
    expect(c.live()).toHaveLength(1);
    expect(limitEvents(c)).toEqual([true, false]);
    c.restartScheduler();
    c.run(5_000);
    expect(c.live()).toHaveLength(1);
    expect(limitEvents(c)).toEqual([true, false]);
  });

  test("leaves no record of a tenant that is deleted", () => {
    const c = limited(100n);
    reach(c, 100n, 3_600_000);
    c.operation("delete", "a");
    c.run(10_000);
    expect([...c.log.keys()].filter((key) => key.startsWith("limits."))).toEqual([]);
  });

  test.each([
    [
      "of another meter",
      { limit: create(UsageLimitSchema, { meter: UsageMeter.REQUESTS, period: UsagePeriod.DAY, max: 1n }) },
    ],
    ["of another period", { limit: limitOf(100n, UsagePeriod.MONTH) }],
    ["below what is allowed now", { used: 99n }],
    ["of a period that is over", { until: 1 }],
    ["of a tenant that is not there", { tenant: "b" }],
  ])("nothing happens for one %s", (_, more) => {
    const c = limited(100n);
    reach(c, 100n, 60_000, more);
    c.run(5_000);
    expect(c.live()).toHaveLength(1);
    expect(limitEvents(c)).toEqual([]);
  });
});

test("the ledger is told of limits as they come and go", () => {
  const c = limited(100n);
  const { state } = c.core;
  const version = state.limitsVersion;
  expect([...state.limited.keys()]).toEqual(["a"]);
  c.apply("b");
  expect(state.limitsVersion).toBe(version);
  c.apply("a", { usageLimits: [] });
  expect([...state.limited.keys()]).toEqual([]);
  c.apply("a", { usageLimits: [limitOf(5n)] });
  c.operation("delete", "a");
  c.run(10_000);
  expect(state.limited.size).toBe(0);
  expect(state.limitsVersion).toBeGreaterThan(version + 1);
});

test("rule 9: tenants with limits have a bound", () => {
  const c = new Cluster({ config: { maxLimited: 1 } });
  c.apply("a", { usageLimits: [limitOf(1n)] });
  expect(c.refused(c.apply("b", { usageLimits: [limitOf(1n)] }))).toMatchObject({ kind: "too-many" });
  c.granted(c.apply("a", { usageLimits: [limitOf(2n)] }));
});
