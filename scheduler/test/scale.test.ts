/** Several instances of a tenant, by load; and who comes first when places are short. */
import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { seeded } from "@warren/common/testing/seeded";
import { InstancesSchema } from "@warren/proto/common";
import { FairQueue } from "../src/core/fair-queue.ts";
import { Lru } from "../src/core/lru.ts";
import { Timers } from "../src/core/timers.ts";
import { Cluster } from "./cluster.ts";

const upTo = (max: number, more = {}) => ({
  instances: create(InstancesSchema, { max, targetConcurrency: 10, ...more }),
});

function warm(max: number, options: ConstructorParameters<typeof Cluster>[0] = {}, more = {}) {
  const c = new Cluster({ nodes: 3, ...options });
  const g = c.addGateway("g");
  c.apply("a", upTo(max, more));
  c.ensure("a");
  c.run(500);
  return { c, g };
}

describe("by load", () => {
  test("up at once, to what the load needs and no further than the most", () => {
    const { c, g } = warm(4);
    c.touch(g, c.live()[0]!.id, 25);
    c.run(300);
    expect(
      c
        .live()
        .map(({ slot }) => slot)
        .sort(),
    ).toEqual([0, 1, 2]);
    c.touch(g, c.live()[0]!.id, 500);
    c.run(300);
    expect(c.live()).toHaveLength(4);
  });

  test("down slowly, by one at a time, and only what has come to rest", () => {
    const { c, g } = warm(4, { config: { scaleDownMs: 5_000 } });
    c.touch(g, c.live()[0]!.id, 40);
    c.run(300);
    expect(c.live()).toHaveLength(4);
    for (const ref of c.live()) c.touch(g, ref.id, 1);
    const lasting = c.live().at(-1)!;
    c.run(8_000);
    expect(c.live().length).toBeGreaterThanOrEqual(3);
    expect(c.core.state.counts.exits_idle_killed ?? 0).toBe(0); // each has a request in flight: rule 3
    for (const ref of c.live()) c.touch(g, ref.id, ref.id === lasting.id ? 1 : 0);
    c.run(40_000);
    expect(c.live().map(({ id }) => id)).toEqual([lasting.id]);
  });

  test("a maximum that is lowered is come down to, by one at a time", () => {
    const c = new Cluster({ config: { scaleDownMs: 2_000 } });
    const g = c.addGateway("g");
    const instances = (max: number) => ({
      instances: create(InstancesSchema, { max, targetConcurrency: 1 }),
    });
    c.apply("a", instances(4));
    c.ensure("a");
    c.run(200);
    c.touch(g, c.live()[0]!.id, 4);
    c.run(500);
    expect(c.live()).toHaveLength(4);
    c.apply("a", instances(1));
    c.run(3_000);
    expect(c.live()).toHaveLength(3);
    c.run(10_000);
    expect(c.live()).toHaveLength(1);
  });

  test("a restart of a tenant with a minimum is answered, and leaves none of those before", () => {
    const { c } = warm(3, {}, { min: 3 });
    c.run(500);
    const before = c.live().map(({ id }) => id);
    expect(before).toHaveLength(3);
    const restart = c.operation("restart", "a");
    c.run(2_000);
    expect(c.granted(restart).kind).toBe("ensured");
    expect(c.live()).toHaveLength(3);
    expect(c.live().filter(({ id }) => before.includes(id))).toEqual([]);
  });

  test("rule 3: a new scheduler retires none before gateways had the time to come back", () => {
    const { c, g } = warm(4, { config: { scaleDownMs: 100, gatewayReturnMs: 3_000 } });
    c.touch(g, c.live()[0]!.id, 40);
    c.run(300);
    for (const { id } of c.live()) g.inFlight.set(id, 1); // and they stay, unseen by the next one
    g.connected = false;
    c.restartScheduler();
    c.apply("a", upTo(1));
    c.run(2_500);
    expect(c.live()).toHaveLength(4);
  });

  test("at most so many on one node", () => {
    const { c, g } = warm(3, {}, { maxPerNode: 1 });
    c.touch(g, c.live()[0]!.id, 100);
    c.run(500);
    expect(new Set(c.live().map(({ node }) => node)).size).toBe(3);
  });

  test("a clash with the cap is refused when it is applied, and a shared port", () => {
    const c = new Cluster({ config: { maxConcurrent: 3 } });
    expect(c.refused(c.apply("a", upTo(2, { sharePort: true })))).toMatchObject({
      kind: "bad-spec",
      field: "instances.share_port",
    });
    expect(c.refused(c.apply("a", upTo(4)))).toMatchObject({ kind: "bad-spec", field: "instances" });
  });

  test("rule 1 and the seed: whatever the load does, instances stay within their bounds", () => {
    const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
    const random = seeded(seed);
    const { c, g } = warm(6, { seed, config: { maxConcurrent: 5, scaleDownMs: 500 } }, { min: 1, max: 5 });
    for (let i = 0; i < 200; i++) {
      const live = c.live();
      const ref = live[Math.floor(random() * live.length)];
      if (ref) c.touch(g, ref.id, Math.floor(random() * 30));
      if (ref && random() < 0.1) c.crash(ref.id);
      c.run(random() * 400);
      if (c.live().length > 5) throw new Error(`SEED=${seed}: ${c.live().length} live`);
    }
    for (const ref of c.live()) c.touch(g, ref.id, 0);
    c.run(120_000);
    expect({ seed, live: c.live().length }).toEqual({ seed, live: 1 });
  });
});

describe("when places are short", () => {
  test("a tenant that wants many does not starve one that wants one", () => {
    const c = new Cluster({ nodes: 2, config: { maxConcurrent: 4 } });
    const g = c.addGateway("g");
    c.apply("greedy", upTo(4));
    c.ensure("greedy");
    c.run(300);
    c.touch(g, c.live()[0]!.id, 100);
    c.apply("small");
    const call = c.ensure("small", 5_000);
    c.run(5_000);
    expect(c.granted(call).kind).toBe("ensured");
  });

  test("the higher priority comes first, and is never evicted for a lower one", () => {
    const c = new Cluster({ config: { maxConcurrent: 1, minResidenceMs: 10 } });
    c.addGateway("g");
    c.apply("low");
    c.apply("high", { priority: 5 });
    c.ensure("high");
    c.run(500);
    const low = c.ensure("low", 1_000);
    c.run(1_100);
    expect(c.refused(low).kind).toBe("cap");
    expect(c.live().map(({ tenant }) => tenant)).toEqual(["high"]);
    c.operation("stop", "high");
    c.ensure("low");
    c.run(500);
    const high = c.ensure("high", 1_000);
    c.run(900);
    expect(c.granted(high).kind).toBe("ensured");
  });
});

describe("its parts", () => {
  test("FairQueue: by priority, and in turns", () => {
    const queue = new FairQueue();
    for (const [key, priority] of [
      ["a", 0],
      ["b", 0],
      ["c", 9],
      ["d", 0],
    ] as const)
      queue.add(key, priority);
    expect([...queue]).toEqual(["c", "a", "b", "d"]);
    queue.delete("c");
    queue.rotate("a");
    expect([...queue]).toEqual(["b", "d", "a"]);
    queue.add("a", 3);
    expect(queue.first()).toBe("a");
    expect(queue.size).toBe(3);
  });

  test("Lru: by class, then by use", () => {
    const lru = new Lru();
    for (const id of ["a", "b", "c"]) lru.use(id, 0);
    lru.use("keep", 1);
    lru.use("a", 0);
    lru.add("b", 0);
    expect([...lru]).toEqual(["b", "c", "a", "keep"]);
    lru.use("keep", 0);
    lru.delete("c");
    expect([...lru]).toEqual(["b", "a", "keep"]);
  });

  test("Timers: in the order of time, whatever the order of adding", () => {
    const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
    const random = seeded(seed);
    const timers = new Timers();
    for (let i = 0; i < 500; i++)
      timers.add({ at: Math.floor(random() * 1_000), kind: "tenant", key: `${i}` });
    let last = -1;
    for (let timer = timers.pop(700); timer; timer = timers.pop(700)) {
      if (timer.at < last) throw new Error(`SEED=${seed}: ${timer.at} after ${last}`);
      last = timer.at;
    }
    expect(last).toBeLessThanOrEqual(700);
    expect(timers.pop(10_000)!.at).toBeGreaterThan(700);
  });
});
