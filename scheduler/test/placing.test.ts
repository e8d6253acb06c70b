/** Which node: filters, the sample, the best fit; and what is predicted. */
import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { seeded } from "@warren/common/testing/seeded";
import { toDuration } from "@warren/common/time";
import {
  IdlePolicySchema,
  InstancesSchema,
  LimitsSchema,
  NodeCapacitySchema,
  NodePressureSchema,
  TenantSpecSchema,
  type Usage,
  UsageReportSchema,
  UsageSchema,
  WarmWindowSchema,
} from "@warren/proto/common";
import { noNeed } from "../src/core/charge.ts";
import { defaultCoreConfig } from "../src/core/config.ts";
import { exactly, nothing, peakOf, plus } from "../src/core/estimate.ts";
import { refusedText } from "../src/core/filters.ts";
import { DecayingHistogram } from "../src/core/histogram.ts";
import type { Node } from "../src/core/model.ts";
import { type Need, Peaks } from "../src/core/peaks.ts";
import { periodsOf } from "../src/core/periods.ts";
import { type PlaceInput, place, sampleSize } from "../src/core/place.ts";
import { adapted, Gaps, isTimeZone, sleepTimes } from "../src/core/sleep-times.ts";
import { Cluster } from "./cluster.ts";

const GiB = 2 ** 30;
const MiB = 2 ** 20;

function node(name: string, more: Partial<Node> = {}): Node {
  return {
    name,
    agentUrl: "",
    bootId: name,
    incarnation: "1",
    version: "",
    capacity: create(NodeCapacitySchema, { memoryBytes: 8n << 30n, cpuMillis: 4_000 }),
    isolation: [],
    labels: {},
    allowDirectories: true,
    cordoned: false,
    confirmed: true,
    lost: false,
    lastReport: 0,
    lastReportWall: 0,
    instances: new Set(),
    placed: 0,
    starting: 0,
    charged: noNeed,
    relieveAt: 0,
    easeAt: 0,
    ...more,
  };
}

const charged = (bytes: number): Need => ({ memory: exactly(bytes), cpu: nothing });

function ask(roster: readonly Node[], more: Partial<PlaceInput> = {}) {
  return place({
    roster,
    holders: [],
    spec: create(TenantSpecSchema, { key: "a", source: { case: "directory", value: "/app" } }),
    need: { memory: exactly(32 * 2 ** 20), cpu: exactly(50) },
    avoided: undefined,
    perNode: undefined,
    leaves: undefined,
    mono: 0,
    lateMs: defaultCoreConfig.nodeLateMs,
    config: defaultCoreConfig,
    random: seeded(1),
    ...more,
  });
}

const chosen = (result: ReturnType<typeof ask>) => (result.kind === "placed" ? result.node.name : undefined);

describe("the best fit", () => {
  const half = { charged: charged(4 * GiB) };
  const brim = { charged: charged(7.5 * GiB) };

  test("packs up to what is comfortable, and spreads where that is asked for", () => {
    const nodes = [node("empty"), node("half", half), node("brim", brim)];
    expect(chosen(ask(nodes.slice(0, 2)))).toBe("half");
    expect(chosen(ask([nodes[0]!, nodes[2]!]))).toBe("empty");
    expect(chosen(ask(nodes.slice(0, 2), { config: { ...defaultCoreConfig, placement: "spread" } }))).toBe(
      "empty",
    );
  });

  test("a node that holds the release is worth a little worse a fit, no more", () => {
    const a = node("a", { charged: charged(1 * GiB) });
    expect(chosen(ask([a, node("b")], { holders: [] }))).toBe("a");
    const holder = node("holder", { charged: charged(0.5 * GiB) });
    expect(chosen(ask([a, holder], { holders: [holder] }))).toBe("holder");
    expect(chosen(ask([node("half", half), holder], { holders: [holder] }))).toBe("half");
  });

  test("a tenant's instances keep apart where they can, rather than pack or be near their release", () => {
    const holder = node("holder", half);
    const more = { holders: [holder], perNode: new Map([["holder", 1]]) };
    expect(chosen(ask([holder, node("empty")], more))).toBe("empty");
    expect(chosen(ask([holder], more))).toBe("holder");
    const c = new Cluster({ nodes: 3 });
    c.apply("a", { instances: create(InstancesSchema, { min: 3 }) });
    c.run(500);
    expect(new Set(c.live().map(({ node: name }) => name)).size).toBe(3);
  });

  test("a node that waits for its CPU is passed over", () => {
    const slow = node("slow", { ...half, pressure: create(NodePressureSchema, { cpuSomeAvg10: 70 }) });
    expect(chosen(ask([slow, node("b")]))).toBe("b");
    // Two nodes of one host wait alike, whichever has said so.
    expect(chosen(ask([slow, node("b", { bootId: "slow" })]))).toBe("slow");
  });

  test("it says why, and of how many", () => {
    const result = ask([node("a")]);
    expect(result.kind === "placed" && result.why).toMatch(
      /best fit of 1 node: 1\.3 % filled by predicted peaks/,
    );
    const many = ask(Array.from({ length: 100 }, (_, i) => node(`n${i}`)));
    expect(many.kind === "placed" && many.why).toContain("8 sampled of 100 nodes");
  });
});

describe("filters", () => {
  test.each<[string, Partial<Node>, Partial<PlaceInput>]>([
    ["not reporting", { confirmed: false }, {}],
    ["not reporting", { lastReport: -10_000 }, {}],
    ["cordoned", { cordoned: true }, {}],
    ["no tenants from directories", { allowDirectories: false }, {}],
    ["to be left", {}, { leaves: "n" }],
    [
      "full of instances",
      {
        placed: 3,
        capacity: create(NodeCapacitySchema, { memoryBytes: 8n << 30n, cpuMillis: 4_000, maxInstances: 3 }),
      },
      {},
    ],
    ["not enough memory", { charged: charged(8 * GiB) }, {}],
    ["not enough memory", { pressure: create(NodePressureSchema, { tenantMemoryBytes: 8n << 30n }) }, {}],
    ["short of memory (PSI)", { pressure: create(NodePressureSchema, { memorySomeAvg10: 90 }) }, {}],
    ["starting as many as it may", { starting: 32 }, {}],
    ["failed a start just now", {}, { avoided: new Map([["n", 5]]) }],
  ])("%s", (text, state, more) => {
    const result = ask([node("n", state)], more);
    expect(result).toMatchObject({ kind: "nowhere", refused: { [text]: 1 } });
    expect(refusedText({ [text]: 2 })).toBe(`${text}: 2 nodes`);
  });

  test("nowhere has seen every node, and counts them by reason", () => {
    const nodes = Array.from({ length: 97 }, (_, i) =>
      node(`n${i}`, i % 2 ? { cordoned: true } : { lost: true }),
    );
    expect(ask(nodes)).toMatchObject({ kind: "nowhere", refused: { cordoned: 48, "not reporting": 49 } });
  });

  test("the one node of a thousand that can take it is found", () => {
    const nodes = Array.from({ length: 1_000 }, (_, i) => node(`n${i}`, { cordoned: i !== 617 }));
    expect(chosen(ask(nodes))).toBe("n617");
  });

  test("the sample grows with the logarithm", () => {
    expect([1, 2, 4, 5, 100, 10_000].map((nodes) => sampleSize(nodes, 8))).toEqual([8, 8, 8, 8, 8, 14]);
  });
});

test("the more nodes there are, the less often each reports, and the later it is late", () => {
  expect(periodsOf(defaultCoreConfig, 3)).toEqual({ report: 1_000, late: 3_500, lost: 10_000 });
  expect(periodsOf(defaultCoreConfig, 2_500).report).toBe(1_000);
  const { report, late, lost } = periodsOf(defaultCoreConfig, 10_000);
  expect(report).toBe(4_000);
  expect(late).toBeGreaterThanOrEqual(3.5 * report);
  expect(lost).toBeGreaterThan(2 * late);
});

describe("what is predicted", () => {
  const usage = (memory: number, cpuMs: number, wallMs: number) =>
    create(UsageSchema, { memoryBytes: BigInt(memory), cpuUs: BigInt(cpuMs * 1000), wallMs: BigInt(wallMs) });

  const unknown: Need = { memory: exactly(32 * MiB), cpu: exactly(50) };

  /** Samples of an instance that uses `cpuMs` of CPU a second after a start that took a whole core for 4 s. */
  function observed(samples: number, cpuMs: number, memory: (i: number) => number): Peaks {
    const peaks = new Peaks();
    let before: Usage | undefined;
    for (let i = 1; i <= samples; i++) {
      const now = usage(memory(i), Math.min(i, 4) * 1_000 + cpuMs * i, 1_000 * i);
      peaks.observe(now, before, i * 1_000);
      before = now;
    }
    return peaks;
  }

  test("an instance that was seen counts with what it holds, and until it settled with the peak of an unknown one", () => {
    expect(new Peaks().predicted(unknown)).toEqual(unknown);
    const { memory } = observed(1, 10, () => 8 * MiB).predicted(unknown);
    expect(memory.mean).toBe(8 * MiB);
    expect(peakOf(memory)).toBeCloseTo(32 * MiB, 0);
  });

  test("once settled it is the mean and the peak of what was observed, without the start", () => {
    const { memory, cpu } = observed(50, 10, () => 8 * MiB).predicted(unknown);
    expect(memory.mean).toBe(8 * MiB);
    expect(peakOf(memory) / MiB).toBeLessThan(11);
    expect(peakOf(cpu)).toBeGreaterThan(9);
    expect(peakOf(cpu)).toBeLessThan(18);
  });

  test("rare peaks raise what one instance is charged, and hardly what a thousand are", () => {
    const one = observed(200, 10, (i) => (i % 15 === 0 ? 80 : 8) * MiB).predicted(unknown).memory;
    expect(peakOf(one) / MiB).toBeGreaterThanOrEqual(60);
    let all = nothing;
    for (let i = 0; i < 1_000; i++) all = plus(all, one);
    expect(peakOf(all) / (1_000 * one.mean)).toBeLessThan(1.25);
  });

  test("of unknown tenants is expected what young instances of others use", () => {
    const c = new Cluster({ nodes: 1 });
    const report = (tenants: readonly string[]) => {
      const usages = c
        .live()
        .filter(({ tenant }) => tenants.includes(tenant))
        .map((instance) => create(UsageReportSchema, { instance, usage: usage(4 * MiB, 100, 6_000) }));
      c.report(c.nodes.get("n1")!, false, usages);
    };
    const seen = Array.from({ length: 6 }, (_, i) => `seen${i}`);
    for (const key of [...seen, "unseen"]) {
      c.apply(key);
      c.ensure(key);
    }
    c.run(500);
    expect(c.core.state.nodes.get("n1")!.charged.memory.mean).toBe(7 * defaultCoreConfig.defaultMemoryBytes);
    report(seen);
    c.apply("new");
    c.ensure("new");
    c.run(100);
    const newest = c.live().find(({ tenant }) => tenant === "new")!;
    expect(c.core.state.instances.get(newest.id)!.charge.memory.mean).toBe(4 * MiB);
  });

  test("what was long ago is forgotten, however long ago", () => {
    const histogram = new DecayingHistogram({ first: 1, growth: 1.5, buckets: 40, halfLifeMs: 1_000 });
    for (let i = 0; i < 100; i++) histogram.add(1_000, i * 10);
    for (let i = 0; i < 100; i++) histogram.add(10, 100_000 + i * 10);
    expect(histogram.quantile(0.95)).toBeLessThan(16);
    expect(histogram.mean()).toBeCloseTo(10, 0);
  });

  test("it is never charged more than its limits let it use, and a node is charged for all it has", () => {
    const c = new Cluster();
    c.apply("a", { limits: create(LimitsSchema, { memoryBytes: 16n << 20n }) });
    c.core.state.nodes.get("n1")!.isolation = [4];
    c.ensure("a");
    c.run(300);
    expect(peakOf(c.core.state.nodes.get("n1")!.charged.memory)).toBe(16 * MiB);
    c.operation("stop", "a");
    c.run(1_000);
    expect(c.core.state.nodes.get("n1")!.charged).toEqual(noNeed);
  });
});

describe("when it sleeps", () => {
  const defaults = { idleFreezeAfterMs: 10, idlePageOutAfterMs: 20, idleStopAfterMs: 30 };
  const spec = (idle: Parameters<typeof create<typeof IdlePolicySchema>>[1]) =>
    create(TenantSpecSchema, { key: "a", idle: create(IdlePolicySchema, idle) });

  test("by the spec, else the cluster's", () => {
    expect(sleepTimes(undefined, undefined, defaults, 0)).toEqual({ freeze: 10, pageOut: 20, stop: 30 });
    expect(sleepTimes(spec({ freezeAfter: toDuration(100) }), undefined, defaults, 0)).toMatchObject({
      freeze: 100,
      pageOut: 100,
    });
  });

  test("adaptive: long enough to span nearly all gaps, short where waiting is in vain", () => {
    const gaps = new Gaps();
    expect(adapted(60_000, gaps)).toBe(60_000);
    for (let i = 0; i < 50; i++) gaps.note(90_000, i * 1_000);
    expect(adapted(60_000, gaps)).toBeGreaterThan(90_000);
    const rare = new Gaps();
    for (let i = 0; i < 50; i++) rare.note(3_600_000, i * 1_000);
    expect(adapted(60_000, rare)).toBe(15_000);
    const often = new Gaps();
    for (let i = 0; i < 50; i++) often.note(2_000, i * 1_000);
    expect(adapted(60_000, often)).toBe(15_000);
  });

  test.each([
    ["within the window", "2026-11-20T09:00:00Z", true], // a Friday
    ["before it", "2026-11-20T07:59:00Z", false],
    ["at its end", "2026-11-20T18:00:00Z", false],
    ["on another day", "2026-11-21T09:00:00Z", false],
  ])("kept warm by the week: %s", (_, at, warm) => {
    const idle = { warm: [create(WarmWindowSchema, { days: [5], from: "08:00", until: "18:00" })] };
    expect(
      sleepTimes(spec(idle), undefined, defaults, Date.parse(at)).stop === Number.POSITIVE_INFINITY,
    ).toBe(warm);
  });

  test("over midnight, in a zone with another day", () => {
    const idle = {
      warm: [create(WarmWindowSchema, { days: [5], from: "22:00", until: "02:00", timeZone: "Asia/Tokyo" })],
    };
    const isWarm = (at: string) => sleepTimes(spec(idle), undefined, defaults, Date.parse(at)).freeze > 1e9;
    expect(isWarm("2026-11-20T13:30:00Z")).toBe(true); // Friday 22:30 there
    expect(isWarm("2026-11-20T16:30:00Z")).toBe(true); // Saturday 01:30
    expect(isWarm("2026-11-20T17:30:00Z")).toBe(false);
    expect(isTimeZone("Asia/Tokyo")).toBe(true);
    expect(isTimeZone("Middle/Earth")).toBe(false);
  });

  test("a zone that nobody knows is refused by name when it is applied", () => {
    const c = new Cluster();
    const idle = create(IdlePolicySchema, {
      warm: [create(WarmWindowSchema, { from: "08:00", until: "18:00", timeZone: "Middle/Earth" })],
    });
    expect(c.refused(c.apply("a", { idle }))).toMatchObject({
      kind: "bad-spec",
      field: "idle.warm.time_zone",
    });
  });
});
