/** Down and up the ladder: active → frozen → paged out → stopped. */
import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { toDuration } from "@warren/common/time";
import {
  IdlePolicySchema,
  InstanceMode,
  type InstanceRef,
  InstanceState,
  InstancesSchema,
  NodeCapacitySchema,
  NodeHostSchema,
  NodePressureSchema,
  ReadinessKind,
  ReadinessSchema,
  UsageReportSchema,
  UsageSchema,
} from "@warren/proto/common";
import { Cluster } from "./cluster.ts";

const { ACTIVE, FROZEN, PAGED_OUT } = InstanceMode;
const ladder = (more = {}) => ({
  idle: create(IdlePolicySchema, {
    freezeAfter: toDuration(1_000),
    pageOutAfter: toDuration(2_000),
    stopAfter: toDuration(4_000),
    ...more,
  }),
});

const quick = { idleFreezeAfterMs: 1_000, idlePageOutAfterMs: 2_000, idleStopAfterMs: 4_000 };

function warm(spec: Parameters<Cluster["apply"]>[1], config = {}): { c: Cluster; ref: InstanceRef } {
  const c = new Cluster({ nodes: 0, config });
  c.addNode("n1", { host: create(NodeHostSchema, { canPageOut: true }) });
  c.addGateway("g");
  c.apply("a", spec);
  c.ensure("a");
  c.run(200);
  return { c, ref: c.live()[0]! };
}

const mode = (c: Cluster) => c.core.state.instances.values().next().value?.mode;
/** What its agent has. */
const really = (c: Cluster, { node, id }: InstanceRef) => c.nodes.get(node)!.instances.get(id);

describe("an unused instance", () => {
  test("is frozen, paged out and stopped, each in its time", () => {
    const { c, ref } = warm(ladder());
    c.run(600);
    expect(really(c, ref)?.mode).toBe(ACTIVE);
    c.run(600);
    expect(really(c, ref)?.mode).toBe(FROZEN);
    expect(mode(c)).toBe(FROZEN);
    c.run(1_000);
    expect(really(c, ref)?.mode).toBe(PAGED_OUT);
    c.run(2_500);
    expect(c.live()).toEqual([]);
    expect(c.core.state.counts).toMatchObject({ freezes: 1, page_outs: 1, exits_idle_killed: 1 });
    expect(c.core.state.counts.failures).toBeUndefined();
  });

  test("rule 3: is left alone while a request is in flight, however long that takes", () => {
    const { c, ref } = warm(ladder());
    const g = c.gateways.get("g")!;
    c.touch(g, ref.id, 1);
    c.run(20_000);
    expect(really(c, ref)?.mode).toBe(ACTIVE);
    c.touch(g, ref.id, 0);
    c.run(1_500);
    expect(really(c, ref)?.mode).toBe(FROZEN);
  });

  test("where the host cannot page out, it stays frozen until it is stopped", () => {
    const { c, ref } = warm(ladder());
    c.core.state.nodes.get("n1")!.host = undefined;
    c.run(3_000);
    expect(really(c, ref)?.mode).toBe(FROZEN);
    c.run(2_000);
    expect(c.live()).toEqual([]);
  });

  test("never_freeze is stopped only; keep_warm neither", () => {
    const never = warm(ladder({ neverFreeze: true, freezeAfter: undefined, pageOutAfter: undefined }));
    never.c.run(3_000);
    expect(really(never.c, never.ref)?.mode).toBe(ACTIVE);
    never.c.run(2_000);
    expect(never.c.live()).toEqual([]);
    const keep = warm({ idle: create(IdlePolicySchema, { keepWarm: true }) });
    keep.c.run(200_000);
    expect(really(keep.c, keep.ref)?.mode).toBe(ACTIVE);
  });

  test("that its spec keeps at all times is frozen, not stopped", () => {
    const { c } = warm({ ...ladder(), instances: create(InstancesSchema, { min: 1 }) });
    c.run(20_000);
    expect(c.live()).toHaveLength(1);
    expect(mode(c)).toBe(PAGED_OUT);
  });

  test("what no request can wake is never frozen nor stopped, kept at all times or not", () => {
    const readiness = create(ReadinessSchema, { kind: ReadinessKind.NONE });
    for (const min of [0, 1]) {
      const { c, ref } = warm({ readiness, instances: create(InstancesSchema, { min }) }, quick);
      c.run(200_000);
      expect(really(c, ref)?.mode).toBe(ACTIVE);
    }
    const other = warm({ readiness: create(ReadinessSchema, { kind: ReadinessKind.MESSAGE }) }, quick);
    other.c.run(200_000);
    expect(other.c.live()).toEqual([]);
  });

  test("an agent that cannot freeze is not asked all the time", () => {
    const { c, ref } = warm(ladder({ stopAfter: toDuration(600_000) }));
    really(c, ref)!.wakes = 7n; // as if its wakes had risen unseen, once
    c.run(1_500);
    expect(c.core.state.counts.freezes_refused).toBe(1);
    c.run(1_500);
    expect(really(c, ref)?.mode).not.toBe(ACTIVE);
  });
});

describe("waking", () => {
  test("an Ensure of a frozen one thaws it, and starts nothing", () => {
    const { c, ref } = warm(ladder({ stopAfter: toDuration(60_000) }));
    c.run(4_000);
    expect(really(c, ref)?.mode).toBe(PAGED_OUT);
    const calls = [c.ensure("a"), c.ensure("a"), c.ensure("a")];
    c.run(50);
    for (const call of calls) expect(c.granted(call)).toMatchObject({ instance: ref.id, cold: false });
    expect(really(c, ref)).toMatchObject({ mode: ACTIVE, wakes: 1n });
    expect(c.starts.get("a")).toBe(1);
    c.run(1_500);
    expect(really(c, ref)?.mode).toBe(FROZEN); // and so on
  });

  test("an Ensure while it is being frozen is answered when it runs", () => {
    const { c, ref } = warm(ladder());
    while (c.core.state.instances.get(ref.id)!.phase.kind !== "ready" || !command(c, ref)) c.run(1);
    const call = c.ensure("a");
    c.run(50);
    expect(c.granted(call)).toMatchObject({ instance: ref.id });
    expect(really(c, ref)?.mode).toBe(ACTIVE);
  });

  test("a gateway's own thaw is told to the others, and a stop that did not know of it is undone", () => {
    const { c, ref } = warm(ladder({ stopAfter: toDuration(60_000) }));
    const instance = c.core.state.instances.get(ref.id)!;
    while (instance.phase.kind !== "stopping") c.run(1);
    const running = really(c, ref)!;
    running.mode = ACTIVE;
    running.wakes++; // it is to be stopped, by what the scheduler knows
    c.run(100);
    expect(c.live()).toHaveLength(1);
    expect(c.core.state.counts.stops_undone).toBe(1);
    expect(mode(c)).toBe(ACTIVE);
  });

  test("rule 3: what was told to freeze, and to thaw in vain, counts as frozen until somebody has thawed it", () => {
    const { c, ref } = warm(ladder({ stopAfter: toDuration(60_000) }));
    while (!command(c, ref)) c.run(1);
    c.nodes.get("n1")!.reachable = false; // the freeze is on its way; it may arrive at any time
    c.ensure("a", 200);
    c.run(400);
    expect(mode(c)).toBe(FROZEN);
    c.nodes.get("n1")!.reachable = true;
    const call = c.ensure("a");
    c.run(1_000);
    expect(c.granted(call)).toMatchObject({ instance: ref.id });
    expect(mode(c)).toBe(ACTIVE);
  });

  test("rule 4: an agent that cannot be reached leaves the caller waiting until its deadline, no longer", () => {
    const { c, ref } = warm(ladder({ stopAfter: toDuration(60_000) }));
    c.run(1_500);
    c.nodes.get("n1")!.reachable = false;
    const call = c.ensure("a", 1_000);
    const later = c.ensure("a", 3_000);
    c.run(1_100);
    expect(c.refused(call).kind).toBe("deadline");
    c.nodes.get("n1")!.reachable = true;
    c.run(1_500);
    expect(c.granted(later)).toMatchObject({ instance: ref.id });
  });

  test("gateways are told that it sleeps, so that they wake it by themselves", () => {
    const { c } = warm(ladder({ stopAfter: toDuration(60_000) }));
    const modes: InstanceMode[] = [];
    const step = c.core.step.bind(c.core);
    c.core.step = (input, at) => {
      const effects = step(input, at);
      for (const effect of effects) {
        if (effect.type === "endpoints") modes.push(...effect.message.endpoints.map((one) => one.mode));
      }
      return effects;
    };
    c.run(1_500);
    c.ensure("a");
    c.run(100);
    expect(modes).toEqual([InstanceMode.QUIESCING, FROZEN, FROZEN, ACTIVE].filter((_, i) => i !== 2));
  });
});

function command(c: Cluster, { id }: InstanceRef) {
  const { phase } = c.core.state.instances.get(id)!;
  return phase.kind === "ready" ? phase.command : undefined;
}

describe("a node short of memory", () => {
  function short(c: Cluster): void {
    const node = c.nodes.get("n1")!;
    c.ask((call) => ({
      type: "report",
      call,
      node: "n1",
      incarnation: `n1-${node.incarnation}`,
      fencedEpoch: node.fencedEpoch,
      transitions: [],
      usages: [],
      pressure: create(NodePressureSchema, { tenantMemoryBytes: 8n << 30n }),
    }));
  }

  test("puts idle instances down the ladder before their time, busy ones never", () => {
    const { c, ref } = warm(
      ladder({
        freezeAfter: toDuration(600_000),
        pageOutAfter: toDuration(600_000),
        stopAfter: toDuration(900_000),
      }),
    );
    c.apply("busy", {});
    c.ensure("busy");
    c.run(3_000);
    const busy = c.live().find(({ tenant }) => tenant === "busy")!;
    c.touch(c.gateways.get("g")!, busy.id, 1);
    short(c);
    c.run(100);
    expect(really(c, ref)?.mode).toBe(FROZEN);
    for (let i = 0; i < 4; i++) {
      c.run(2_100);
      short(c);
    }
    c.run(100);
    expect(really(c, ref)?.mode).toBe(PAGED_OUT);
    expect(really(c, busy)?.mode).toBe(ACTIVE);
  });

  test("that cannot page out stops them", () => {
    const { c } = warm(
      ladder({
        freezeAfter: toDuration(600_000),
        pageOutAfter: toDuration(600_000),
        stopAfter: toDuration(900_000),
      }),
    );
    c.core.state.nodes.get("n1")!.host = undefined;
    c.core.state.nodes.get("n1")!.capacity = create(NodeCapacitySchema, {
      memoryBytes: 1n << 30n,
      cpuMillis: 1000,
    });
    c.run(3_000);
    short(c);
    c.run(200);
    expect(c.live()).toEqual([]);
  });
});

test("a new leader goes on from what sleeps: nothing is woken, nothing is started", () => {
  const { c, ref } = warm(ladder({ stopAfter: toDuration(60_000) }));
  c.run(1_500);
  c.restartScheduler();
  c.run(2_500);
  expect(really(c, ref)).toMatchObject({ mode: PAGED_OUT, wakes: 0n, state: InstanceState.READY });
  const call = c.ensure("a");
  c.run(100);
  expect(c.granted(call)).toMatchObject({ instance: ref.id, cold: false });
  expect(c.starts.get("a")).toBe(1);
});

test("thaws are counted as nodes tell them, since gateways thaw without a word", () => {
  const { c, ref } = warm(ladder({ stopAfter: toDuration(600_000) }));
  const node = c.nodes.get("n1")!;
  for (const [i, thaws] of [0n, 2n, 5n].entries()) {
    const usage = create(UsageSchema, { wallMs: BigInt(1_000 * (i + 1)), thaws });
    c.report(node, false, [create(UsageReportSchema, { instance: ref, usage })]);
  }
  expect(c.core.state.counts.thaws).toBe(5);
});
