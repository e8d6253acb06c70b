/** Room on a node: rule 11, what is idle is not stopped while there is memory and a place for it. */
import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { seeded } from "@warren/common/testing/seeded";
import {
  EvictionBound,
  type InstanceRef,
  InstancesSchema,
  NodeHostSchema,
  NodePressureSchema,
  UsageReportSchema,
  UsageSchema,
} from "@warren/proto/common";
import { explain } from "../src/core/explain.ts";
import { Cluster } from "./cluster.ts";

const MiB = 2 ** 20;
const GiB = 2 ** 30;

interface Used {
  readonly memory: number;
  readonly cpuMillis?: number;
}

/** Their node reports what they have used by now; what the node holds is their sum. */
function report(c: Cluster, used: (tenant: string) => Used | undefined, cpuSomeAvg10 = 0): void {
  c.memoryOf = (tenant) => Math.round(used(tenant)?.memory ?? 0);
  const usages = c.live().flatMap((instance) => {
    const what = used(instance.tenant);
    if (!what) return [];
    const wallMs = c.now;
    const usage = create(UsageSchema, {
      memoryBytes: BigInt(Math.round(what.memory)),
      cpuUs: BigInt(Math.round((what.cpuMillis ?? 0) * wallMs)),
      wallMs: BigInt(wallMs),
    });
    return [create(UsageReportSchema, { instance, usage })];
  });
  const held = usages.reduce((sum, { usage }) => sum + usage!.memoryBytes, 0n);
  const node = c.nodes.get("n1")!;
  c.ask((call) => ({
    type: "report",
    call,
    node: "n1",
    incarnation: `n1-${node.incarnation}`,
    fencedEpoch: node.fencedEpoch,
    transitions: [],
    usages,
    pressure: create(NodePressureSchema, { tenantMemoryBytes: held, cpuSomeAvg10 }),
  }));
}

/** A node of so much memory with these tenants, each started, seen at work by its node, and idle for a while. */
function idle(memoryBytes: number, used: Readonly<Record<string, Used>>): Cluster {
  const c = new Cluster({ nodes: 1, config: { minResidenceMs: 10 } });
  c.addGateway("g");
  const node = c.core.state.nodes.get("n1")!;
  node.capacity = { ...node.capacity!, memoryBytes: BigInt(memoryBytes) };
  for (const key of Object.keys(used)) {
    c.apply(key);
    const call = c.ensure(key);
    c.run(200);
    expect(c.granted(call).kind).toBe("ensured");
    report(c, (tenant) => used[tenant]);
  }
  for (let i = 0; i < 10; i++) {
    c.run(1_000);
    report(c, (tenant) => used[tenant]);
  }
  return c;
}

const names = (instances: readonly InstanceRef[]) => instances.map(({ tenant }) => tenant).sort();

/** Until every one of the calls was answered or refused, with reports once a second. */
function settle(c: Cluster, used: (tenant: string) => Used | undefined, seconds: number): void {
  for (let i = 0; i < seconds; i++) {
    c.run(1_000);
    report(c, used);
  }
}

describe("rule 11: CPU is compressible", () => {
  test("whatever CPU tenants use, nobody is refused, evicted or stopped for it", () => {
    const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
    const random = seeded(seed);
    const used = Object.fromEntries(
      Array.from({ length: 20 }, (_, i) => [`t${i}`, { memory: 8 * MiB, cpuMillis: random() * 4_000 }]),
    );
    const c = idle(4 * GiB, used);
    expect(c.core.state.nodes.get("n1")!.charged.cpu.mean).toBeGreaterThan(4_000);
    for (let i = 20; i < 30; i++) {
      c.apply(`t${i}`);
      const call = c.ensure(`t${i}`);
      settle(c, (tenant) => used[tenant], 1);
      expect(c.granted(call), `SEED=${seed}`).toMatchObject({ kind: "ensured" });
    }
    expect(c.core.state.counts.evictions, `SEED=${seed}`).toBeUndefined();
    expect(c.live()).toHaveLength(30);
  });

  test("a node whose tasks wait for CPU freezes its idle instances early, and stops none", () => {
    const c = idle(4 * GiB, { a: { memory: 8 * MiB }, b: { memory: 8 * MiB }, busy: { memory: 8 * MiB } });
    const busy = c.live().find(({ tenant }) => tenant === "busy")!;
    c.touch(c.gateways.get("g")!, busy.id, 1);
    for (let i = 0; i < 3; i++) {
      report(c, () => ({ memory: 8 * MiB }), 80);
      c.run(3_000);
    }
    expect(c.core.state.counts).toMatchObject({ freezes: 2 });
    expect(c.live()).toHaveLength(3);
  });
});

test("rule 11: a thousand idle apps of 3 MiB on 4 GiB, ensured twice in random order, all stay", () => {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
  const random = seeded(seed);
  const c = new Cluster({ nodes: 1, config: { maxConcurrent: 1_000 } });
  c.addGateway("g");
  const node = c.core.state.nodes.get("n1")!;
  node.capacity = { ...node.capacity!, memoryBytes: BigInt(4 * GiB), cpuMillis: 2_000 };
  const check = c.check.bind(c);
  c.check = () => {}; // it counts all of them at every step
  const tenants = Array.from({ length: 1_000 }, (_, i) => `t${i}`);
  for (const key of tenants) c.apply(key);
  const calls: string[] = [];
  const round = () => {
    for (const [i, key] of tenants.toSorted(() => random() - 0.5).entries()) {
      const call = c.ensure(key, 30_000);
      c.run(25); // 40 starts a second
      if (i % 40 === 39) {
        report(c, () => ({ memory: (2.5 + random()) * MiB, cpuMillis: random() * 20 }));
      }
      calls.push(call);
    }
  };
  round();
  settle(c, () => ({ memory: 3 * MiB, cpuMillis: 1 }), 5);
  const before = new Map(c.live().map(({ tenant, id }) => [tenant, id]));
  expect(before.size, `SEED=${seed}`).toBe(1_000);
  round();
  settle(c, () => ({ memory: 3 * MiB, cpuMillis: 1 }), 5);
  expect(new Map(c.live().map(({ tenant, id }) => [tenant, id])), `SEED=${seed}`).toEqual(before);
  expect(c.core.state.counts.evictions).toBeUndefined();
  expect(calls.filter((call) => !("answer" in (c.outcomes.get(call) ?? {})))).toEqual([]);
  check();
}, 60_000);

describe("memory that is really short", () => {
  const frozenApps = Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`s${i}`, { memory: 2 * MiB }]));

  test("of idle instances goes the one that gives back enough, not all the small ones before it", () => {
    const used: Record<string, Used> = { ...frozenApps, big: { memory: 900 * MiB } };
    const c = idle(GiB, used);
    c.apply("new");
    const node = c.core.state.nodes.get("n1")!;
    node.capacity = { ...node.capacity!, memoryBytes: BigInt(950 * MiB) };
    const call = c.ensure("new", 20_000);
    settle(c, (tenant) => used[tenant] ?? { memory: 10 * MiB }, 5);
    expect(c.granted(call).kind).toBe("ensured");
    expect(names(c.live())).not.toContain("big");
    expect(c.live()).toHaveLength(21);
    expect(c.core.state.counts.evictions).toBe(1);
  });

  test("nobody goes where all that is idle would not give back enough", () => {
    const used: Record<string, Used> = { ...frozenApps, busy: { memory: 900 * MiB } };
    const c = idle(1_000 * MiB, used);
    const busy = c.live().find(({ tenant }) => tenant === "busy")!;
    c.touch(c.gateways.get("g")!, busy.id, 1);
    c.apply("new");
    c.core.state.tenants.get("new")!.peaks = c.core.state.tenants.get("busy")!.peaks;
    const call = c.ensure("new", 4_000);
    settle(c, (tenant) => used[tenant], 5);
    expect(c.refused(call)).toMatchObject({ kind: "no-node", refused: { "not enough memory": 1 } });
    expect(c.core.state.counts.evictions).toBeUndefined();
  });

  test("what only a guess about unmeasured instances lacks is waited for", () => {
    const c = new Cluster({ nodes: 1, config: { defaultMemoryBytes: 3 * GiB, minResidenceMs: 10 } });
    c.addGateway("g");
    for (const key of ["a", "b"]) {
      c.apply(key);
      c.ensure(key);
    }
    c.run(500);
    c.apply("d");
    const call = c.ensure("d", 20_000);
    c.run(2_000);
    expect(c.outcomes.has(call)).toBe(false);
    settle(c, () => ({ memory: 100 * MiB }), 2);
    expect(c.granted(call).kind).toBe("ensured");
    expect(c.live()).toHaveLength(3);
  });

  test("where the node can page out, idle instances sleep deeper instead of ending", () => {
    const used: Record<string, Used> = { a: { memory: 500 * MiB }, b: { memory: 400 * MiB } };
    const c = idle(960 * MiB, used);
    c.core.state.nodes.get("n1")!.host = create(NodeHostSchema, { canPageOut: true });
    c.apply("new");
    c.core.state.tenants.get("new")!.peaks = c.core.state.tenants.get("b")!.peaks;
    const call = c.ensure("new", 30_000);
    let paged = 0;
    for (let i = 0; i < 15; i++) {
      c.run(1_000);
      paged = c.core.state.counts.page_outs ?? 0;
      report(c, (tenant) => (paged > 0 && tenant !== "new" ? { memory: 2 * MiB } : used[tenant]));
    }
    expect(c.granted(call).kind).toBe("ensured");
    expect(paged).toBeGreaterThan(0);
    expect(c.live()).toHaveLength(3);
  });
});

describe("who was evicted is told why", () => {
  test("by the cap: the event and explain name the bound and what would help", () => {
    const c = new Cluster({ config: { maxConcurrent: 1, minResidenceMs: 10 } });
    c.addGateway("g");
    for (const key of ["a", "b"]) {
      c.apply(key);
      c.ensure(key);
      c.run(1_000);
    }
    expect(names(c.live())).toEqual(["b"]);
    const told = c.events.find(({ payload }) => payload.case === "eviction")?.payload.value;
    expect(told).toMatchObject({ bound: EvictionBound.CLUSTER_INSTANCES, inFavourOf: "b" });
    expect(explain(c.core.state, c.core.config, "a", c.at())).toMatch(
      /It was evicted \d.\d s ago for b: all 1 live instances .*maxConcurrent.*raise it/,
    );
  });

  test("by its node's places", () => {
    const c = new Cluster({ nodes: 1, config: { minResidenceMs: 10 } });
    c.addGateway("g");
    const node = c.core.state.nodes.get("n1")!;
    node.capacity = { ...node.capacity!, maxInstances: 1 };
    for (const key of ["a", "b"]) {
      c.apply(key);
      c.ensure(key);
      c.run(1_000);
    }
    expect(explain(c.core.state, c.core.config, "a", c.at())).toContain(
      "all 1 instances that node n1 may have (maxInstances)",
    );
  });
});

test("nobody is evicted for a tenant that would not be placed there all the same", () => {
  const c = new Cluster({ config: { minResidenceMs: 100 } });
  const node = c.core.state.nodes.get("n1")!;
  node.capacity = { ...node.capacity!, maxInstances: 2 };
  c.apply("b");
  c.ensure("b");
  c.run(200);
  c.apply("a", { instances: create(InstancesSchema, { min: 2, maxPerNode: 1 }) });
  c.run(20_000);
  expect(
    c
      .live()
      .map(({ tenant }) => tenant)
      .sort(),
  ).toEqual(["a", "b"]);
  expect(c.core.state.counts.evictions).toBeUndefined();
});
