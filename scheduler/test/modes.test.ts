/** What an instance does while it is ready, and how its agent ends it unasked. */
import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { toDuration } from "@warren/common/time";
import {
  EndpointSchema,
  ExitReason,
  InstanceMode,
  type InstanceRef,
  InstanceState,
  UsageSchema,
} from "@warren/proto/common";
import { instanceView } from "../src/services/views.ts";
import { Cluster } from "./cluster.ts";

const { ACTIVE, FROZEN, PAGED_OUT, QUIESCING } = InstanceMode;

/** One node with a ready instance of "a". */
function oneWarm(config: ConstructorParameters<typeof Cluster>[0] = {}): { c: Cluster; ref: InstanceRef } {
  const c = new Cluster(config);
  c.apply("a");
  c.ensure("a");
  c.run(200);
  return { c, ref: c.live()[0]! };
}

/** As an agent tells it: READY to READY, with everything else that a record of it carries. */
function becomes(c: Cluster, ref: InstanceRef, fromMode: InstanceMode, toMode: InstanceMode): void {
  c.transition(ref, {
    to: InstanceState.READY,
    fromMode,
    toMode,
    after: toDuration(60_000),
    endpoint: create(EndpointSchema, { host: "127.0.0.1", port: 2_000 }),
    pid: 42,
    usage: create(UsageSchema, { wallMs: 60_000n, frozenMs: 10_000n }),
  });
}

const view = (c: Cluster, { id }: InstanceRef) =>
  instanceView(c.core.state, c.config, c.core.state.instances.get(id)!, c.at());

describe("a record of a change of mode", () => {
  test("is kept and shown, and is neither a start nor an end", () => {
    const { c, ref } = oneWarm();
    const { startDuration, endpoint } = view(c, ref);
    const { live } = c.core.state;
    const counts = { ...c.core.state.counts };
    const events = c.events.length;
    for (const [from, to] of [
      [ACTIVE, FROZEN],
      [FROZEN, PAGED_OUT],
      [PAGED_OUT, ACTIVE],
      [ACTIVE, FROZEN],
      [ACTIVE, FROZEN], // told twice
    ] as const) {
      becomes(c, ref, from, to);
      expect(view(c, ref)).toMatchObject({ state: InstanceState.READY, mode: to, endpoint, startDuration });
    }
    expect(view(c, ref).usage?.frozenMs).toBe(10_000n);
    expect(c.core.state.counts).toEqual(counts);
    expect(c.core.state.live).toBe(live);
    expect(c.events).toHaveLength(events);
    expect(c.starts.get("a")).toBe(1);
  });

  test("a frozen instance is ensured without a start", () => {
    const { c, ref } = oneWarm();
    becomes(c, ref, ACTIVE, FROZEN);
    const call = c.ensure("a");
    c.run(20);
    expect(c.granted(call)).toMatchObject({ kind: "ensured", instance: ref.id, cold: false });
    expect(view(c, ref).mode).toBe(ACTIVE);
    expect(c.starts.get("a")).toBe(1);
  });

  test("rule 1: a frozen instance holds its place under the cap until it is gone", () => {
    const { c, ref } = oneWarm({ config: { maxConcurrent: 1, minResidenceMs: 100 } });
    const g = c.addGateway("g");
    becomes(c, ref, ACTIVE, FROZEN);
    c.touch(g, ref.id, 1);
    c.apply("b");
    const refused = c.ensure("b", 1_000);
    c.run(1_100);
    expect(c.refused(refused).kind).toBe("cap");
    c.touch(g, ref.id, 0);
    const call = c.ensure("b", 5_000);
    c.run(5_000);
    expect(c.granted(call).kind).toBe("ensured");
    expect(c.live().map(({ tenant }) => tenant)).toEqual(["b"]);
    expect(c.core.state.counts.exits_lru_evicted).toBe(1);
  });

  test("while it is asked to leave, that is what is shown", () => {
    const { c, ref } = oneWarm({ config: { idleStopAfterMs: 500 } });
    becomes(c, ref, ACTIVE, FROZEN);
    const g = c.addGateway("g");
    c.disconnect(g); // believed in, and silent: the attempt stays open for a while
    c.run(600);
    expect(view(c, ref).mode).toBe(QUIESCING);
  });

  test("of an instance that is not there any more it changes nothing", () => {
    const { c, ref } = oneWarm();
    c.operation("stop", "a");
    c.run(1_000);
    becomes(c, ref, ACTIVE, FROZEN);
    expect(c.core.state.instances.size).toBe(0);
    expect(c.core.state.live).toBe(0);
  });
});

describe("an instance that its agent ends unasked", () => {
  const unhealthy = { reason: ExitReason.UNHEALTHY, message: "its liveness path failed 3 times in a row" };

  test("takes nothing new from the moment it is told, and whoever asks meanwhile gets the next one", () => {
    const { c, ref } = oneWarm();
    c.transition(ref, { to: InstanceState.STOPPING });
    expect(view(c, ref).state).toBe(InstanceState.STOPPING);
    const call = c.ensure("a");
    c.run(100);
    expect(c.outcomes.has(call)).toBe(false);
    c.nodes.get(ref.node)!.instances.delete(ref.id);
    c.transition(ref, { from: InstanceState.STOPPING, to: InstanceState.EXITED, exit: unhealthy });
    c.run(500);
    expect(c.granted(call)).toMatchObject({ kind: "ensured", cold: true });
    expect(c.core.state.tenants.get("a")).toMatchObject({ failures: 1, lastExit: unhealthy });
    expect(c.core.state.counts.exits_unhealthy).toBe(1);
  });

  test.each([
    ["it served for long: the failures before are forgiven", 60_000, 1],
    ["it did not", 1_000, 3],
  ])("%s", (_, servedMs, failures) => {
    const { c, ref } = oneWarm();
    c.core.state.tenants.get("a")!.failures = 2;
    c.run(servedMs);
    c.transition(ref, { to: InstanceState.STOPPING });
    c.transition(ref, { from: InstanceState.STOPPING, to: InstanceState.EXITED, exit: unhealthy });
    expect(c.core.state.tenants.get("a")!.failures).toBe(failures);
  });

  test.each([ExitReason.OOM_KILLED, ExitReason.UNHEALTHY, ExitReason.LIMIT])(
    "rule 6: again and again (reason %i), the tenant is backed off",
    (reason) => {
      const c = new Cluster();
      c.apply("a");
      for (let i = 0; i < 2; i++) {
        c.ensure("a");
        c.run(200);
        const ref = c.live()[0]!;
        c.nodes.get(ref.node)!.instances.delete(ref.id);
        c.transition(ref, { to: InstanceState.EXITED, exit: { reason } });
      }
      expect(c.refused(c.ensure("a"))).toMatchObject({ kind: "backoff" });
    },
  );

  test("one whose agent is started again meanwhile is stopped all the same", () => {
    const { c, ref } = oneWarm();
    c.transition(ref, { to: InstanceState.STOPPING });
    const node = c.nodes.get(ref.node)!;
    c.killAgent(node);
    c.startAgent(node);
    c.run(1_000);
    expect(c.live()).toEqual([]);
    expect(c.core.state.instances.size).toBe(0);
  });
});
