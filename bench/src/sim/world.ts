/** The production core, fed at once with what it asks for: what is measured is nothing but its decisions. */
import { create } from "@bufbuild/protobuf";
import {
  EndpointSchema,
  ExitReason,
  ExitSchema,
  IdlePolicySchema,
  InstanceMode,
  type InstanceRef,
  InstanceSchema,
  InstanceState,
  NodeCapacitySchema,
  type NodePressure,
  NodePressureSchema,
  TenantSpecSchema,
  type UsageReport,
  UsageReportSchema,
  UsageSchema,
} from "@warren/proto/common";
import { type CoreConfig, defaultCoreConfig } from "@warren/scheduler/core/config";
import { Core } from "@warren/scheduler/core/core";
import type { Effect } from "@warren/scheduler/core/effects";
import type { Input } from "@warren/scheduler/core/inputs";

export interface NodeSize {
  readonly memoryBytes: number;
  readonly cpuMillis: number;
}

/** An app server of today, and what a 1 CPU-core-per-256-tenants fleet is made of. */
export const nodeSize: NodeSize = { memoryBytes: 64 * 2 ** 30, cpuMillis: 16_000 };

/** CPU of a start, and of an instance that idles. */
const startCpuUs = 300_000;
const idleCpuMillis = 2;

export class World {
  readonly core: Core;
  now = 1_000;
  /** Real ms spent in the core. */
  spentMs = 0;
  coldStarts = 0;
  evictions = 0;
  refused = 0;
  /** What each tenant's instance uses, bytes. */
  readonly memoryOf: (tenant: string) => number;
  readonly #startedAt = new Map<string, number>();
  /** Instances that their node has not told of yet, by node. */
  readonly #unmeasured = new Map<string, Set<string>>();
  readonly #pressure = new Map<string, NodePressure>();
  #inputs: Input[] = [];
  #ids = 0;
  #calls = 0;

  /** @param predicts whether the core is told what instances use; nodes tell in any case what they hold in all */
  constructor(
    config: Partial<CoreConfig>,
    private readonly random: () => number,
    memoryOf: (tenant: string) => number,
    private readonly predicts = true,
  ) {
    this.memoryOf = memoryOf;
    this.core = new Core({
      config: { ...defaultCoreConfig, gatewayReturnMs: 0, firstPeriodMs: 0, ...config },
      epoch: 1n,
      since: this.now,
      random,
      newId: () => `01J${String(++this.#ids).padStart(23, "0")}`,
    });
  }

  /** @returns real ms that this one step took, without what follows from it */
  feed(input: Input): number {
    this.#inputs.push(input);
    if (this.#inputs.length > 1) return 0; // its turn comes after those before it
    let first = 0;
    for (let i = 0; i < this.#inputs.length; i++) {
      const began = performance.now();
      const effects = this.core.step(this.#inputs[i]!, { mono: this.now, wall: 1.7e12 + this.now });
      const took = performance.now() - began;
      this.spentMs += took;
      if (i === 0) first = took;
      for (const effect of effects) this.#perform(effect);
    }
    this.#inputs = [];
    return first;
  }

  ensure(tenant: string, withinMs = 5_000): number {
    return this.feed({ type: "ensure", call: `c${++this.#calls}`, tenant, deadline: this.now + withinMs });
  }

  use(instance: string): void {
    const entry = { instance, idleMs: 0, inFlight: 0, seen: 0, sealed: false };
    this.feed({ type: "touch", source: "client", entries: [entry] });
  }

  addTenant(key: string, stopAfterMs = 0): void {
    const idle = create(IdlePolicySchema, { neverFreeze: true });
    if (stopAfterMs > 0)
      idle.stopAfter = {
        seconds: BigInt(Math.round(stopAfterMs / 1000)),
        nanos: 0,
        $typeName: "google.protobuf.Duration",
      };
    const spec = create(TenantSpecSchema, { key, source: { case: "directory", value: "/app" }, idle });
    this.feed({ type: "apply", call: `c${++this.#calls}`, spec });
  }

  addNode(name: string): void {
    const { memoryBytes, cpuMillis } = nodeSize;
    const capacity = create(NodeCapacitySchema, { memoryBytes: BigInt(memoryBytes), cpuMillis });
    const info = {
      node: name,
      agentUrl: `https://${name}`,
      bootId: "boot",
      incarnation: name,
      version: "bench",
      capacity,
      isolation: [],
      labels: {},
      allowDirectories: true,
    };
    this.feed({ type: "join", call: `c${++this.#calls}`, info });
    this.report(name, true);
  }

  /** What its node reports; its instances' counters too when asked for, and what they add up to. */
  report(name: string, first = false, withUsage = first): number {
    const usages = withUsage ? this.#usagesOn(name) : this.#firstUsages(name);
    return this.feed({
      type: "report",
      call: `c${++this.#calls}`,
      node: name,
      incarnation: name,
      fencedEpoch: 1n,
      transitions: [],
      usages,
      pressure: this.#pressure.get(name)!,
      inventory: first ? [] : undefined,
    });
  }

  #usagesOn(name: string): UsageReport[] {
    const all = [...this.core.state.nodes.get(name)!.instances].map((id) => this.#usageOf(id));
    const bytes = all.reduce((sum, { usage }) => sum + (usage?.memoryBytes ?? 0n), 0n);
    const pressure = { tenantMemoryBytes: bytes, liveInstances: all.length };
    this.#pressure.set(name, create(NodePressureSchema, pressure));
    this.#unmeasured.delete(name);
    return this.predicts ? all : [];
  }

  /** Agents tell of a new instance at their next look, and of the others more seldom. */
  #firstUsages(name: string): UsageReport[] {
    const { instances } = this.core.state;
    const fresh = [...(this.#unmeasured.get(name) ?? [])].filter((id) => instances.has(id));
    this.#unmeasured.delete(name);
    return this.predicts ? fresh.map((id) => this.#usageOf(id)) : [];
  }

  /** Its tenant's memory, give or take a fifth, and CPU besides that of its start. */
  #usageOf(id: string): UsageReport {
    const { ref } = this.core.state.instances.get(id)!;
    const wallMs = Math.round(this.now - (this.#startedAt.get(id) ?? 0));
    const usage = create(UsageSchema, {
      memoryBytes: BigInt(Math.round(this.memoryOf(ref.tenant) * (0.8 + 0.4 * this.random()))),
      wallMs: BigInt(wallMs),
      cpuUs: BigInt(startCpuUs + wallMs * idleCpuMillis),
    });
    return create(UsageReportSchema, { instance: ref, usage });
  }

  #perform(effect: Effect): void {
    switch (effect.type) {
      case "persist":
        if (effect.durable) this.feed(effect.durable);
        return;
      case "start":
        this.coldStarts++;
        this.#startedAt.set(effect.ref.id, this.now);
        this.#unmeasured.set(
          effect.ref.node,
          (this.#unmeasured.get(effect.ref.node) ?? new Set()).add(effect.ref.id),
        );
        this.feed({
          type: "started",
          instance: effect.ref.id,
          outcome: { kind: "answered", instance: running(effect.ref) },
        });
        return;
      case "stop": {
        const exit = create(ExitSchema, { reason: effect.reason });
        if (effect.reason === ExitReason.LRU_EVICTED) this.evictions++;
        const gone = create(InstanceSchema, { ref: effect.ref, state: InstanceState.EXITED, exit });
        this.#startedAt.delete(effect.ref.id);
        this.feed({ type: "stopped", instance: effect.ref.id, gone });
        return;
      }
      case "freeze":
      case "thaw": {
        const outcome = { kind: "done", wakes: 0n } as const;
        this.feed({ type: "slept", instance: effect.ref.id, command: effect.command, outcome });
        return;
      }
      case "refuse":
        this.refused++;
        return;
      case "answer":
      case "endpoints":
      case "event":
      case "backup-volume":
      case "remove-volume":
        return;
      default:
        effect satisfies never;
    }
  }
}

function running(ref: InstanceRef) {
  const endpoint = create(EndpointSchema, { host: "127.0.0.1", port: 1 });
  return create(InstanceSchema, { ref, state: InstanceState.READY, mode: InstanceMode.ACTIVE, endpoint });
}
