/**
 * One agent: fence, instances, spool and reporter as in agent/src, on a model of its host. What it must not forget is on
 * the host's disk; the rest dies with it.
 */
import { create } from "@bufbuild/protobuf";
import type { Cause } from "@warren/agent/machine";
import type { What } from "@warren/agent/spool";
import { fromDuration } from "@warren/common/time";
import {
  ExitReason,
  ExitSchema,
  type Instance as InstanceMessage,
  type InstanceRef,
  InstanceRefSchema,
  InstanceSchema,
  InstanceState,
  type NodeCapacity,
  NodeHostSchema,
  NodePressureSchema,
  type TenantSpec,
} from "@warren/proto/common";
import { NodeRecordSchema } from "@warren/proto/scheduler";
import type { SleepOutcome } from "@warren/scheduler/core/inputs";
import { Actor } from "./actor.ts";
import type { Host } from "./host.ts";
import { AgentInstance } from "./instance.ts";
import type { Rng } from "./rng.ts";
import type { Rpc, Scheduler } from "./scheduler.ts";
import type { Site } from "./site.ts";

const debounceMs = 5;
const periodMs = 1_000;
const usageEveryMs = 3_000;
const callMs = 10_000;
const retryMs = { base: 100, max: 5_000 };
const recordsAtOnce = 1_000;
const defaultDrainMs = 5_000;

export interface StartRequest {
  readonly epoch: bigint;
  readonly incarnation: string;
  readonly ref: InstanceRef;
  readonly spec: TenantSpec;
}

export interface StopRequest {
  readonly epoch: bigint;
  readonly id: string;
  readonly reason: ExitReason;
  readonly graceMs: number;
  readonly ifWakes: bigint | undefined;
  readonly by: Decision;
}

export interface FreezeRequest {
  readonly epoch: bigint;
  readonly id: string;
  readonly ifWakes: bigint;
  readonly pageOut: boolean;
  readonly by: Decision;
}

/** For the check of rule 3: who decided, and the gateways whose requests it had to reckon with then. */
export interface Decision {
  readonly reckoned: ReadonlySet<string>;
  readonly scheduler: Scheduler;
}

export class Agent extends Actor {
  readonly instances = new Map<string, AgentInstance>();
  readonly rng: Rng;
  incarnation = "";
  /** The scheduler that it talks to, right or wrong. */
  target: Scheduler | undefined;
  #starts = 0;
  #joined = false;
  #first = true;
  #reporting = false;
  #dirty = false;
  #wake = 0;
  #failures = 0;

  constructor(
    readonly site: Site,
    readonly host: Host,
    readonly capacity: NodeCapacity,
    readonly labels: Readonly<Record<string, string>>,
  ) {
    super(host.name, site.agenda);
    this.rng = site.rng.fork(`agent ${host.name}`);
    this.start();
  }

  get now(): number {
    return this.agenda.now;
  }

  get wall(): number {
    return this.agenda.now + this.site.wallOffset;
  }

  /** Its process starts, and takes over what the one before left. */
  start(): void {
    this.up = true;
    this.incarnation = `${this.name}-${this.host.boot}-${++this.#starts}`;
    this.instances.clear();
    this.#joined = false;
    this.#reporting = false;
    this.#dirty = false;
    this.#failures = 0;
    this.#wake++;
    const { disk } = this.host;
    for (const record of [...disk.records.values()]) {
      const { id } = record.ref;
      if (disk.ended.has(id)) {
        disk.records.delete(id);
        continue;
      }
      // It is known before it acts, as in production: its end may come at once.
      const instance = AgentInstance.adopt(this, record, this.site.readinessMs(record.ref.tenant));
      if (disk.records.has(id)) this.instances.set(id, instance);
    }
    this.after(this.rng.between(0, 50), () => this.#loop());
    this.every(usageEveryMs, () => {
      for (const instance of this.instances.values()) if (instance.process) instance.reportUsage();
    });
  }

  // AgentService

  startInstance(
    { epoch, incarnation, ref, spec }: StartRequest,
    reply: (answer: Rpc<InstanceMessage> & { elsewhere?: boolean }) => void,
  ): void {
    if (incarnation !== "" && incarnation !== this.incarnation) {
      reply({ failed: "precondition" });
      return;
    }
    if (!this.#fence(epoch)) {
      reply({ failed: "precondition" });
      return;
    }
    const { id } = ref;
    let instance = this.instances.get(id);
    if (!instance) {
      const ended = this.#ended(id);
      if (ended) {
        reply({ ok: ended });
        return;
      }
      const { maxInstances } = this.capacity;
      if (maxInstances > 0 && this.instances.size >= maxInstances) {
        reply({ failed: "refused", elsewhere: true });
        return;
      }
      const graceMs = fromDuration(spec.stop?.grace, 5_000);
      const drainMs = fromDuration(spec.stop?.drain, defaultDrainMs);
      instance = AgentInstance.start(this, ref, graceMs, drainMs, this.site.readinessMs(ref.tenant));
      this.instances.set(id, instance);
    }
    const one = instance;
    one.whenSettled(() => {
      if (one.state.phase === "refused") reply({ failed: "refused", elsewhere: true });
      else if (one.state.phase === "ready") reply({ ok: one.toMessage() });
      else one.whenGone(() => reply({ ok: this.#ended(id) ?? one.toMessage() }));
    });
  }

  stopInstance(
    { epoch, id, reason, graceMs, ifWakes, by }: StopRequest,
    reply: (answer: Rpc<{ gone?: InstanceMessage }> & { thawed?: bigint }) => void,
  ): void {
    if (!this.#fence(epoch)) {
      reply({ failed: "precondition" });
      return;
    }
    const instance = this.instances.get(id);
    if (instance && ifWakes !== undefined && ifWakes !== instance.wakes) {
      reply({ failed: "refused", thawed: instance.wakes });
      return;
    }
    if (!instance) {
      const known = this.host.disk.ended.has(id);
      if (!known) this.remember(id, undefined);
      reply({ ok: { gone: known ? this.#ended(id) : undefined } });
      return;
    }
    if (instance.state.cause === undefined) this.site.truth.putAway(this, instance, ExitReason[reason], by);
    const cause: Cause = { reason };
    instance.stop(cause, graceMs, 0);
    instance.whenGone(() => reply({ ok: { gone: this.#ended(id) } }));
  }

  freezeInstance(
    { epoch, id, ifWakes, pageOut, by }: FreezeRequest,
    reply: (outcome: SleepOutcome) => void,
  ): void {
    const instance = this.instances.get(id);
    if (!this.#fence(epoch)) reply({ kind: "failed", message: "stale epoch" });
    else if (!instance) reply({ kind: "gone" });
    else if (instance.wakes !== ifWakes) reply({ kind: "thawed", wakes: instance.wakes });
    else if (instance.state.phase !== "ready")
      reply({ kind: "failed", message: "only a ready one is frozen" });
    else {
      if (!instance.isAtRest) this.site.truth.putAway(this, instance, "freeze", by);
      instance.freeze(pageOut, reply);
    }
  }

  /** Anybody on the node may ask, whatever the epoch. */
  thawInstance(id: string): SleepOutcome {
    const instance = this.instances.get(id);
    const { phase } = instance?.state ?? {};
    if (!instance || phase === "draining" || phase === "stopping") return { kind: "gone" };
    instance.thaw();
    return { kind: "done", wakes: instance.wakes };
  }

  /** It ended here and never starts again; undefined where it never began. */
  remember(id: string, ended: InstanceMessage | undefined): void {
    if (!this.host.disk.ended.has(id)) this.host.disk.ended.set(id, ended);
  }

  append(what: What): void {
    const { disk } = this.host;
    const record = create(NodeRecordSchema, { seq: disk.nextSeq++, what });
    disk.spool.push(record);
    this.#dirty = true;
    this.#poke();
  }

  #ended(id: string): InstanceMessage | undefined {
    const { ended } = this.host.disk;
    if (!ended.has(id)) return undefined;
    return (
      ended.get(id) ??
      create(InstanceSchema, {
        ref: create(InstanceRefSchema, { id }),
        state: InstanceState.EXITED,
        exit: create(ExitSchema, { reason: ExitReason.UNKNOWN }),
      })
    );
  }

  #fence(epoch: bigint): boolean {
    const { disk } = this.host;
    if (epoch < disk.epoch) return false;
    disk.epoch = epoch;
    return true;
  }

  // The reporter: one call at a time, as reporter.ts does it.

  #loop(): void {
    if (this.#reporting) return;
    this.#reporting = true;
    if (this.#joined) this.#report();
    else this.#join();
  }

  #again(): void {
    this.#reporting = false;
    const wait = this.#dirty ? debounceMs : periodMs;
    const token = ++this.#wake;
    this.after(wait, () => {
      if (token === this.#wake) this.#loop();
    });
  }

  /** Something happened: it is told soon. */
  #poke(): void {
    if (this.#reporting) return;
    const token = ++this.#wake;
    this.after(debounceMs, () => {
      if (token === this.#wake) this.#loop();
    });
  }

  #failed(answer: Rpc<unknown> | undefined): void {
    if (answer && "failed" in answer && answer.failed === "precondition") this.#joined = false;
    if (!answer || this.rng.chance(0.5)) this.target = this.site.lookUp(this.target, this.rng);
    const full = Math.min(retryMs.max, retryMs.base * 2 ** Math.min(this.#failures++, 20));
    const token = ++this.#wake;
    this.after(full * this.rng.between(0.5, 1), () => {
      this.#reporting = false;
      if (token === this.#wake) this.#loop();
    });
  }

  #join(): void {
    const { host } = this;
    this.target ??= this.site.leader;
    const scheduler = this.target;
    if (!scheduler) {
      this.#failed(undefined);
      return;
    }
    const info = {
      node: host.name,
      agentUrl: `https://${host.name}`,
      bootId: host.bootId,
      incarnation: this.incarnation,
      version: "sim",
      capacity: this.capacity,
      isolation: [],
      host: create(NodeHostSchema, { kind: "sim", canPageOut: Number(host.name.slice(1)) % 2 === 0 }),
      labels: this.labels,
      allowDirectories: true,
    };
    const highest = host.disk.epoch;
    this.site.net.call<Rpc<bigint>>(
      this,
      scheduler,
      callMs,
      (reply) => scheduler.join(info, highest, reply),
      (answer) => {
        if (!answer || "failed" in answer || answer.ok < host.disk.epoch) {
          this.#failed(answer);
          return;
        }
        host.disk.epoch = answer.ok;
        this.#joined = true;
        this.#first = true;
        this.#failures = 0;
        this.#report();
      },
    );
  }

  #report(): void {
    const { host, site } = this;
    const scheduler = this.target;
    if (!scheduler) {
      this.#failed(undefined);
      return;
    }
    this.#dirty = false;
    const records = host.disk.spool.slice(0, recordsAtOnce);
    const all = [...this.instances.values()];
    const message = {
      node: host.name,
      incarnation: this.incarnation,
      stream: host.disk.stream,
      fencedEpoch: host.disk.epoch,
      records,
      pressure: create(NodePressureSchema, {
        tenantMemoryBytes: BigInt(all.length * 10 * 2 ** 20),
        liveInstances: all.length,
      }),
      inventory: this.#first ? all.map((instance) => instance.toMessage()) : undefined,
    };
    site.net.call<Rpc<{ ackedSeq: bigint; epoch: bigint }>>(
      this,
      scheduler,
      callMs,
      (reply) => scheduler.report(message, reply),
      (answer) => {
        if (!answer || "failed" in answer) {
          this.#failed(answer);
          return;
        }
        const { ackedSeq, epoch } = answer.ok;
        if (epoch > host.disk.epoch) host.disk.epoch = epoch;
        this.#first = false;
        this.#failures = 0;
        const acked = records.filter(({ seq }) => seq <= ackedSeq);
        for (const record of acked) site.truth.acknowledged(host, record);
        if (acked.length > 0) host.disk.spool = host.disk.spool.filter(({ seq }) => seq > ackedSeq);
        this.#again();
      },
    );
  }
}
