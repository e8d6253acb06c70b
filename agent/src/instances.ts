/** All instances of this node: accepts, joins, stops, adopts. */
import { statSync } from "node:fs";
import { isAbsolute } from "node:path";
import { chosenRung, rungName, rungOfLimits } from "@warren/common/isolation";
import { Code, ConnectError, rpcError } from "@warren/common/rpc/errors";
import { patience } from "@warren/common/rpc/patience";
import { filesProblem, volumeBytes } from "@warren/common/tenant-files";
import { fromDuration } from "@warren/common/time";
import type { StartInstanceRequest, VolumeMount } from "@warren/proto/agent";
import {
  ExitReason,
  type Instance as InstanceMessage,
  Isolation,
  type Limits,
  ReadinessKind,
  type TenantSpec,
} from "@warren/proto/common";
import { describeEnded } from "./describe.ts";
import { errnoOf } from "./files.ts";
import { Instance } from "./instance.ts";
import { endProcesses } from "./kill.ts";
import type { StartPlan } from "./launch.ts";
import { livenessPolicy } from "./liveness.ts";
import type { Mechanism } from "./mechanism.ts";
import { type InstanceLimits, type Left, noLimits } from "./records.ts";
import { thawedSince } from "./thawed.ts";

/** One that listens elsewhere is given up after so long: it may open another port before its own, but not for ever. */
const elsewherePatienceMs = 5_000;
const defaultGraceMs = 5_000;
const defaultDrainMs = 5_000;

export interface InstancesOptions {
  readonly allowDirectories: boolean;
  /** 0 means no bound of its own. */
  readonly maxInstances: number;
  /** Of those that are not frozen, held when one is thawed; 0 means no bound of its own. */
  readonly maxActive: number;
}

/** How an instance is to be stopped. */
export interface StopRequest {
  readonly reason: ExitReason;
  /** Between SIGTERM and SIGKILL, ms; undefined: the spec's. */
  readonly graceMs: number | undefined;
  /** Before SIGTERM, for the connections to end, ms. */
  readonly drainMs: number;
}

export class Instances {
  readonly #live = new Map<string, Instance>();
  #accepting = true;

  constructor(
    private readonly m: Mechanism,
    private readonly options: InstancesOptions,
  ) {}

  get size(): number {
    return this.#live.size;
  }

  all(): Instance[] {
    return [...this.#live.values()];
  }

  /** Digests of releases that something runs from, or is about to. */
  releasesInUse(): Set<string> {
    return new Set(this.all().map((instance) => instance.ref.release));
  }

  list(): InstanceMessage[] {
    return this.all()
      .map((instance) => instance.toMessage())
      .sort((a, b) => (a.ref!.id < b.ref!.id ? -1 : 1));
  }

  /**
   * Starts an instance, joins its start under way, or answers what became of it. Answers when it is READY or EXITED;
   * when the signal aborts the caller gets its error and the start goes on.
   * @throws ConnectError INVALID_ARGUMENT, FAILED_PRECONDITION, RESOURCE_EXHAUSTED or UNAVAILABLE when it is not
   * accepted, by no fault of the tenant's code; nothing is left of it then
   */
  async start(request: StartInstanceRequest, signal: AbortSignal): Promise<InstanceMessage> {
    const id = request.instance!.id;
    let instance = this.#live.get(id);
    if (!instance) {
      const ended = this.m.ended.get(id);
      if (ended) return ended;
      instance = this.#accept(this.#plan(request));
    }
    await unlessAborted(instance.settled, signal);
    if (instance.state.phase === "refused") throw instance.state.error;
    if (instance.state.phase === "ready") return instance.toMessage();
    // It is being stopped, or ended the moment it was ready: what becomes of it is what the caller must know.
    await unlessAborted(instance.gone, signal);
    return this.m.ended.get(id) ?? instance.toMessage();
  }

  /**
   * Stops an instance; answers how it ended, once nothing of it is left. An id that is not known here is gone; it is
   * remembered, so that a start of it that comes late is refused.
   */
  async stop(
    id: string,
    { reason, graceMs, drainMs }: StopRequest,
    signal: AbortSignal,
  ): Promise<InstanceMessage | undefined> {
    const instance = this.#live.get(id);
    if (!instance) {
      const ended = this.m.ended.get(id);
      if (!ended) this.m.ended.addUnknown(id, reason);
      return ended;
    }
    await unlessAborted(instance.stop({ reason }, graceMs ?? instance.graceMs, drainMs), signal);
    return this.m.ended.get(id);
  }

  /**
   * Freezes an instance; answers when nothing of it runs.
   * @param wakes as the caller knows them: refused if it was thawed since
   * @returns bytes that the host got back, and the instance
   * @throws ConnectError NOT_FOUND, FAILED_PRECONDITION, ABORTED, UNAVAILABLE
   */
  async freeze(
    id: string,
    wakes: bigint,
    pageOut: boolean,
    signal: AbortSignal,
  ): Promise<{ reclaimedBytes: number; instance: InstanceMessage }> {
    const instance = this.#existing(id);
    this.#checkWakes(instance, wakes);
    if (instance.state.phase !== "ready") {
      throw rpcError(
        Code.FailedPrecondition,
        `instance ${id} is ${instance.state.phase}: only a ready one is frozen`,
      );
    }
    const frozen = instance.freeze(pageOut);
    let reclaimedBytes = 0;
    const done = frozen.then((bytes) => {
      reclaimedBytes = bytes;
    });
    await unlessAborted(done, signal);
    return { reclaimedBytes, instance: instance.toMessage() };
  }

  /**
   * Lets an instance run, at once; whatever freezes it at this moment is undone.
   * @returns its wakes, raised
   * @throws ConnectError NOT_FOUND, or RESOURCE_EXHAUSTED when as many as may are active
   */
  thaw(id: string): number {
    const instance = this.#existing(id);
    if (instance.state.phase === "draining" || instance.state.phase === "stopping") {
      throw rpcError(Code.NotFound, `instance ${id} is being stopped`);
    }
    const { maxActive } = this.options;
    if (instance.isAtRest && maxActive > 0) {
      const active = this.all().filter((one) => one.isSpawned && !one.isAtRest).length;
      if (active >= maxActive) {
        this.m.metrics.refused.inc({ why: "active" });
        throw rpcError(
          Code.ResourceExhausted,
          `${active} instances are active on this node, and it takes ${maxActive}`,
        );
      }
    }
    instance.thaw();
    this.m.metrics.thaws.inc();
    return instance.state.wakes;
  }

  /** @throws ConnectError FAILED_PRECONDITION when it was thawed since */
  checkWakes(id: string, wakes: bigint): void {
    const instance = this.#live.get(id);
    if (instance) this.#checkWakes(instance, wakes);
  }

  #checkWakes({ state, id }: Instance, wakes: bigint): void {
    if (BigInt(state.wakes) === wakes) return;
    throw rpcError(
      Code.FailedPrecondition,
      `instance ${id} was thawed since: its wakes are ${state.wakes}, not ${wakes}`,
      thawedSince(state.wakes),
    );
  }

  #existing(id: string): Instance {
    const instance = this.#live.get(id);
    if (!instance) throw rpcError(Code.NotFound, `instance ${id} is not on this node, or not any more`);
    return instance;
  }

  get(id: string): Instance | undefined {
    return this.#live.get(id);
  }

  /** Those of one tenant. */
  of(tenant: string): Instance[] {
    return this.all().filter((instance) => instance.ref.tenant === tenant);
  }

  /** The longest that any of them may take from the order to stop until SIGKILL, ms. */
  get longestStopMs(): number {
    return Math.max(0, ...this.all().map((instance) => instance.drainMs + instance.graceMs));
  }

  /** No new instance from now on. */
  close(): void {
    this.#accepting = false;
  }

  /** Stops all, each with its own drain and grace. */
  async stopAll(reason: ExitReason): Promise<void> {
    this.close();
    await Promise.all(
      this.all().map((instance) => instance.stop({ reason }, instance.graceMs, instance.drainMs)),
    );
  }

  /** Stops those that have no process yet: the next agent could do nothing for them. */
  async stopUnspawned(reason: ExitReason): Promise<void> {
    this.close();
    const waiting = this.all().filter((instance) => instance.state.phase === "pending");
    await Promise.all(waiting.map((instance) => instance.stop({ reason }, 0)));
  }

  /** Takes over what an agent before this one left. */
  adopt({ records, broken }: Left): { adopted: number; buried: number } {
    let adopted = 0;
    for (const record of records) {
      const { id } = record.ref;
      const told = this.m.spool.exitOf(id);
      if (told || this.m.ended.isRecent(id)) {
        // The agent died between telling its end and removing its record: after that it must not start again either.
        if (told) this.m.ended.add(describeEnded(told));
        this.m.records.remove(id);
        continue;
      }
      const instance = this.#track(Instance.adopt(this.m, record));
      if (instance.isSpawned && instance.state.cause === undefined) adopted++;
    }
    for (const id of broken) {
      // Who it was is lost, but what runs under its id can be found by it.
      const target = {
        id,
        isOwned: false,
        group: this.m.host.openGroup(""),
        seen: new Map<number, number>(),
      };
      void endProcesses(target, this.m.table, {
        graceLeftMs: () => 0,
        exited: AbortSignal.abort(),
        found: () => undefined,
        empty: () => {
          this.m.ended.addUnknown(id, ExitReason.UNKNOWN);
          this.m.records.remove(id);
        },
        stuck: () => this.m.log.error({ instance: id }, "processes of a broken record withstand SIGKILL"),
        signal: this.m.signal,
      });
    }
    return { adopted, buried: this.#live.size - adopted };
  }

  #accept(plan: StartPlan): Instance {
    const refuse = (why: string, code: Code, message: string): ConnectError => {
      this.m.metrics.refused.inc({ why });
      return rpcError(code, message);
    };
    if (!this.#accepting) throw refuse("stopping", Code.Unavailable, "the agent is stopping");
    const { maxInstances } = this.options;
    if (maxInstances > 0 && this.#live.size >= maxInstances) {
      throw refuse(
        "instances",
        Code.ResourceExhausted,
        `this node has ${this.#live.size} instances and takes at most ${maxInstances}`,
      );
    }
    if (this.m.spool.isFull(this.#live.size)) {
      throw refuse(
        "spool",
        Code.ResourceExhausted,
        "this node's records are not acknowledged and its spool is full: no new instance until the scheduler has taken them",
      );
    }
    return this.#track(Instance.start(this.m, plan));
  }

  #track(instance: Instance): Instance {
    this.#live.set(instance.id, instance);
    void instance.gone.then(() => this.#live.delete(instance.id));
    return instance;
  }

  /** @throws ConnectError naming the field */
  #plan({ instance: ref, spec, volumes, hostName }: StartInstanceRequest): StartPlan {
    const invalid = (field: string, why: string) => rpcError(Code.InvalidArgument, `${field}: ${why}`);
    if (!ref || !spec) throw invalid("instance, spec", "are required");
    if (ref.node !== this.m.node)
      throw invalid("instance.node", `this is node ${this.m.node}, not ${ref.node}`);
    if (spec.key !== ref.tenant)
      throw invalid("spec.key", `is ${spec.key}, but the instance is ${ref.tenant}'s`);
    const rung = this.#rung(spec);
    const files = filesProblem(spec, rung);
    if (files) throw rpcError(Code.FailedPrecondition, `spec.${files.field}: ${files.message}`);
    if (spec.instances?.sharePort && rung > Isolation.NONE && this.m.host.kind === "none") {
      // The kernel lets only processes of one uid share a port, and without groups nothing else tells them apart.
      throw rpcError(
        Code.FailedPrecondition,
        "spec.instances.share_port: on a node without cgroups only tenants of the rung none can share a port",
      );
    }
    return {
      ref,
      rung,
      limits: limitsOf(spec.limits),
      sharesPort: spec.instances?.sharePort ?? false,
      writable: spec.writable,
      volumes: plannedVolumes(spec, volumes),
      source: this.#source(spec, ref.release),
      command: spec.command,
      env: spec.env,
      readiness: {
        kind: spec.readiness?.kind || ReadinessKind.PORT,
        path: spec.readiness?.path ?? "",
        status: spec.readiness?.status ?? 0,
        timeoutMs: fromDuration(spec.readiness?.timeout, patience.readiness),
        ...(spec.readiness?.timeout ? {} : { elsewhereMs: elsewherePatienceMs }),
        hostName: hostName || `${spec.key}.localhost`,
      },
      liveness: livenessPolicy(spec.liveness),
      graceMs: fromDuration(spec.stop?.grace, defaultGraceMs),
      drainMs: fromDuration(spec.stop?.drain, defaultDrainMs),
    };
  }

  /** What this node has not must not be promised: a tenant that needs it is not started without it. */
  #rung(spec: TenantSpec): Isolation {
    const { highest, missing } = this.m.sandbox;
    const rung = chosenRung(spec, highest);
    if (rung <= highest) return rung;
    const field =
      spec.isolation === rung
        ? "spec.isolation"
        : rungOfLimits(spec) === rung
          ? "spec.limits"
          : "spec.volumes";
    throw rpcError(
      Code.FailedPrecondition,
      `${field}: the tenant needs the rung ${rungName(rung)}, and this node has ${rungName(highest)} at most (${missing.join("; ")})`,
    );
  }

  #source({ source }: TenantSpec, release: string): StartPlan["source"] {
    switch (source.case) {
      case "release":
        if (source.value !== release) {
          throw rpcError(
            Code.InvalidArgument,
            `spec.release: is ${source.value}, but the instance's release is ${release || "none"}`,
          );
        }
        return { kind: "release", digest: source.value };
      case "directory":
        if (!this.options.allowDirectories) {
          throw rpcError(
            Code.FailedPrecondition,
            `spec.directory: this node does not run tenants from directories (${source.value}); start its agent with directories allowed, or deploy a release`,
          );
        }
        this.#checkDirectory(source.value);
        return { kind: "directory", path: source.value };
      default:
        throw rpcError(
          Code.InvalidArgument,
          "spec: has neither a release nor a directory, so there is nothing to run",
        );
    }
  }

  #checkDirectory(path: string): void {
    const bad = (why: string) => rpcError(Code.FailedPrecondition, `spec.directory: ${path} ${why}`);
    if (!isAbsolute(path) || path.includes("\0") || path.split("/").includes("..")) {
      throw rpcError(Code.InvalidArgument, `spec.directory: ${path} must be an absolute path without '..'`);
    }
    try {
      if (!statSync(path).isDirectory()) throw bad("is no directory on this node");
    } catch (error) {
      if (error instanceof ConnectError) throw error;
      if (errnoOf(error) === "ENOENT") throw bad("does not exist on this node");
      throw bad(`cannot be read by the agent (${errnoOf(error)})`);
    }
  }
}

/** @throws ConnectError when the spec names one of which no copy was given */
function plannedVolumes(spec: TenantSpec, given: readonly VolumeMount[]): StartPlan["volumes"] {
  return spec.volumes.map((volume) => {
    const { name, path } = volume;
    const mount = given.find((one) => one.name === name);
    if (!mount)
      throw rpcError(
        Code.InvalidArgument,
        `volumes: no copy was given of volume ${name}: is the scheduler older?`,
      );
    return { name, path, id: mount.id, mustExist: mount.mustExist, limitBytes: volumeBytes(volume) };
  });
}

function limitsOf(limits: Limits | undefined): InstanceLimits {
  if (!limits) return noLimits;
  const { memoryBytes, cpuMillis, pids, openFiles, diskBytes } = limits;
  return { memoryBytes: Number(memoryBytes), cpuMillis, pids, openFiles, diskBytes: Number(diskBytes) };
}

/** The caller that goes away is answered; what it waited for goes on. */
async function unlessAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  promise.catch(() => undefined); // it may fail when nobody waits for it any more
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const abort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  try {
    await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
