/** Looks at every instance once an interval, reports usage, and sums up what the node bears. */
import { create } from "@bufbuild/protobuf";
import type { Logger } from "@warren/common/log";
import { type Clock, pause } from "@warren/common/time";
import { type NodePressure, NodePressureSchema } from "@warren/proto/common";
import type { Ballast } from "./ballast.ts";
import { freeBytes, messageOf } from "./files.ts";
import type { Instance } from "./instance.ts";
import { processesOf } from "./kill.ts";
import type { LogStore } from "./logs.ts";
import type { AgentMetrics } from "./metrics.ts";
import type { ProcessTable, Snapshot } from "./processes.ts";
import { takeSample } from "./sample.ts";
import type { Tallies } from "./tallies.ts";

export interface ObserverOptions {
  readonly instances: () => readonly Instance[];
  readonly table: ProcessTable;
  /** What tenants may have of the host in all. */
  readonly capacity: { readonly memoryBytes: number; readonly cpuMillis: number };
  readonly waitingStarts: () => number;
  /** Its disk holds tenants' files. */
  readonly diskPath: string;
  /** Taken again once there is room. */
  readonly ballast: Ballast;
  readonly metrics: AgentMetrics;
  readonly logs: LogStore;
  readonly tallies: Tallies;
  readonly clock: Clock;
  readonly log: Logger;
  readonly intervalMs: number;
  /** Between two usage records of an instance. */
  readonly usageEveryMs: number;
}

/** Of these instances PSS and open files are read in one interval; the others follow in the next ones. */
const wholeSamplesPerInterval = 10;
const diskEveryMs = 5_000;
/** After so long others get their turn. Not by number of instances: one may have 500 processes. */
const turnMs = 4;

export class Observer {
  readonly #stopped = new AbortController();
  readonly #running: Promise<unknown>;
  readonly #usageAt = new Map<string, number>();
  #turn = 0;
  #cpuMillis = 0;
  #pressure: NodePressure | undefined;
  #lastCpu = { us: new Map<string, number>(), at: 0 };

  constructor(private readonly options: ObserverOptions) {
    this.#running = Promise.all([
      this.#every(options.intervalMs, () => this.observe()),
      this.#every(diskEveryMs, () => this.#checkDisks()),
      options.logs.run(this.#stopped.signal, options.log),
    ]);
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#running;
  }

  /** What the node bears, as of the last interval. */
  pressure(): NodePressure {
    this.#pressure ??= this.#measurePressure();
    return this.#pressure;
  }

  #measurePressure(): NodePressure {
    const { capacity, table, waitingStarts, diskPath } = this.options;
    const { kernel } = table;
    const live = this.options.instances().filter((instance) => instance.isSpawned);
    const held = live.reduce((sum, { counters }) => sum + counters.memoryBytes, 0);
    const left = kernel.memoryAvailable();
    const whole = (n: number) => BigInt(Math.max(0, Math.round(n)));
    return create(NodePressureSchema, {
      tenantMemoryBytes: whole(held),
      tenantCpuMillis: this.#cpuMillis,
      hostMemoryAvailableBytes: whole(left),
      cpuSomeAvg10: kernel.pressure("cpu", "some"),
      memorySomeAvg10: kernel.pressure("memory", "some"),
      memoryFullAvg10: kernel.pressure("memory", "full"),
      ioSomeAvg10: kernel.pressure("io", "some"),
      liveInstances: live.length,
      frozenInstances: live.filter((instance) => instance.isAtRest).length,
      waitingStarts: waitingStarts(),
      diskAvailableBytes: whole(freeBytes(diskPath)),
      headroomMemoryBytes: whole(Math.min(left, capacity.memoryBytes - held)),
      headroomCpuMillis: Math.max(0, Math.round(capacity.cpuMillis - this.#cpuMillis)),
    });
  }

  /** One round over all instances. */
  async observe(): Promise<void> {
    const { clock, metrics } = this.options;
    const began = clock.monotonic();
    let waited = 0;
    const live = this.options.instances().filter((instance) => instance.isSpawned);
    // One look at the whole table serves those without a group; the others' processes are in their groups.
    const needsTable = live.some((instance) => instance.group.path === "");
    let snapshot = needsTable ? this.options.table.snapshot() : undefined;
    let turnBegan = clock.monotonic();
    let failed: { readonly count: number; readonly first: unknown } | undefined;
    for (const [index, instance] of live.entries()) {
      if (clock.monotonic() - turnBegan >= turnMs) {
        const pausedAt = clock.monotonic();
        await new Promise(setImmediate);
        waited += clock.monotonic() - pausedAt;
        if (this.#stopped.signal.aborted) return;
        // Others had their turn: what was seen before it may be gone.
        if (needsTable) snapshot = this.options.table.snapshot();
        turnBegan = clock.monotonic();
      }
      if (!instance.isSpawned) continue;
      const since = (index - this.#turn + live.length) % live.length;
      // A new one is read whole at once, so that it is not placed and billed by its resident set.
      const whole = since < wholeSamplesPerInterval || instance.counters.memoryBytes === 0;
      try {
        if (instance.isAtRest) instance.rested();
        else this.#sample(instance, snapshot, whole);
      } catch (error) {
        failed = { count: (failed?.count ?? 0) + 1, first: failed?.first ?? error };
      }
    }
    // The others are not left out for it; the counters are cumulative, and the next interval reads it again.
    if (failed) {
      const why = messageOf(failed.first);
      this.options.log.warn({ why, instances: failed.count }, "what instances use could not be read");
    }
    this.#turn = live.length > 0 ? (this.#turn + wholeSamplesPerInterval) % live.length : 0;
    this.#sumCpu(live, clock.monotonic());
    this.options.tallies.save(live);
    this.#reportUsage(live, clock.monotonic());
    this.#pressure = this.#measurePressure();
    metrics.observationSeconds.observe((clock.monotonic() - began - waited) / 1000);
  }

  /** One after the other: of hundreds of directories at once each would wait for all others. */
  async #checkDisks(): Promise<void> {
    this.options.ballast.hold();
    for (const instance of this.options.instances()) {
      if (this.#stopped.signal.aborted) return;
      await instance.checkDisk();
    }
  }

  #sample(instance: Instance, snapshot: Snapshot | undefined, whole: boolean): void {
    const { target } = instance;
    const { kernel } = this.options.table;
    // What a group counts itself need not be read of each process.
    const members =
      target.group.path !== "" || !snapshot
        ? target.group.listPids().map((pid) => ({ pid }))
        : processesOf(target, snapshot);
    if (members.length === 0) return;
    instance.observed(takeSample(kernel, members, instance.group, whole));
  }

  #sumCpu(live: readonly Instance[], now: number): void {
    const us = new Map(live.map((instance) => [instance.id, instance.counters.cpuUs]));
    let used = 0;
    for (const [id, cpu] of us) used += cpu - (this.#lastCpu.us.get(id) ?? 0);
    const elapsedUs = (now - this.#lastCpu.at) * 1000;
    if (this.#lastCpu.at > 0 && elapsedUs > 0) this.#cpuMillis = Math.round((used / elapsedUs) * 1000);
    this.#lastCpu = { us, at: now };
  }

  #reportUsage(live: readonly Instance[], now: number): void {
    const ids = new Set(live.map((instance) => instance.id));
    for (const id of this.#usageAt.keys()) if (!ids.has(id)) this.#usageAt.delete(id);
    for (const instance of live) {
      const last = this.#usageAt.get(instance.id);
      // Half an interval of slack, or each would be late by one.
      if (last !== undefined && now - last < this.options.usageEveryMs - this.options.intervalMs / 2)
        continue;
      this.#usageAt.set(instance.id, now);
      // A new one's at once: until its use is known, the scheduler charges its node by a guess.
      if (instance.isSpawned) instance.reportUsage();
    }
  }

  async #every(ms: number, work: () => Promise<void>): Promise<void> {
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      await pause(ms, signal);
      if (signal.aborted) return;
      try {
        await work();
      } catch (error) {
        // What could not be read now is read in the next interval; the counters are cumulative.
        this.options.log.warn({ why: messageOf(error) }, "an observation failed");
      }
    }
  }
}
