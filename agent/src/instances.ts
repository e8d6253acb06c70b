/** All instances of this node: accepts, joins, stops, adopts. */
import { statSync } from "node:fs";
import { isAbsolute } from "node:path";
import { Code, ConnectError, rpcError } from "@warren/common/rpc/errors";
import { fromDuration } from "@warren/common/time";
import type { StartInstanceRequest } from "@warren/proto/agent";
import {
  ExitReason,
  type Instance as InstanceMessage,
  Isolation,
  type TenantSpec,
} from "@warren/proto/common";
import { errnoOf } from "./files.ts";
import { Instance, type StartPlan } from "./instance.ts";
import { endProcesses } from "./kill.ts";
import type { Mechanism } from "./mechanism.ts";

const defaultReadinessMs = 30_000;
const defaultGraceMs = 5_000;

export interface InstancesOptions {
  readonly allowDirectories: boolean;
  /** 0 means no bound of its own. */
  readonly maxInstances: number;
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
   * @param graceMs undefined: the spec's
   */
  async stop(
    id: string,
    reason: ExitReason,
    graceMs: number | undefined,
    signal: AbortSignal,
  ): Promise<InstanceMessage | undefined> {
    const instance = this.#live.get(id);
    if (!instance) {
      const ended = this.m.ended.get(id);
      if (!ended) this.m.ended.addUnknown(id, reason);
      return ended;
    }
    await unlessAborted(instance.stop(reason, graceMs ?? instance.graceMs), signal);
    return this.m.ended.get(id);
  }

  get(id: string): Instance | undefined {
    return this.#live.get(id);
  }

  /** The longest that any of them may take between SIGTERM and SIGKILL, ms. */
  get longestGraceMs(): number {
    return Math.max(0, ...this.all().map((instance) => instance.graceMs));
  }

  /** No new instance from now on. */
  close(): void {
    this.#accepting = false;
  }

  /** Stops all, each with its own grace. */
  async stopAll(reason: ExitReason): Promise<void> {
    this.close();
    await Promise.all(this.all().map((instance) => instance.stop(reason, instance.graceMs)));
  }

  /** Stops those that have no process yet: the next agent could do nothing for them. */
  async stopUnspawned(reason: ExitReason): Promise<void> {
    this.close();
    const waiting = this.all().filter((instance) => instance.state.phase === "pending");
    await Promise.all(waiting.map((instance) => instance.stop(reason, 0)));
  }

  /** Takes over what an agent before this one left. */
  adopt(): { adopted: number; buried: number } {
    const { records, broken } = this.m.records.load();
    let adopted = 0;
    for (const record of records) {
      const { id } = record.ref;
      if (this.m.ended.isRecent(id) || this.m.spool.hasExitOf(id)) {
        // The agent died between telling its end and removing its record.
        this.m.records.remove(id);
        continue;
      }
      const instance = this.#track(Instance.adopt(this.m, record));
      if (instance.isSpawned && instance.state.cause === undefined) adopted++;
    }
    for (const id of broken) {
      // Who it was is lost, but what runs under its id can be found by it.
      const target = { id, group: this.m.host.openGroup(""), seen: new Map<number, number>() };
      void endProcesses(target, this.m.table, {
        killAt: () => 0,
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
  #plan({ instance: ref, spec }: StartInstanceRequest): StartPlan {
    const invalid = (field: string, why: string) => rpcError(Code.InvalidArgument, `${field}: ${why}`);
    if (!ref || !spec) throw invalid("instance, spec", "are required");
    if (ref.node !== this.m.node)
      throw invalid("instance.node", `this is node ${this.m.node}, not ${ref.node}`);
    if (spec.key !== ref.tenant)
      throw invalid("spec.key", `is ${spec.key}, but the instance is ${ref.tenant}'s`);
    this.#checkRungs(spec);
    return {
      ref,
      source: this.#source(spec, ref.release),
      command: spec.command,
      env: spec.env,
      readiness: {
        path: spec.readiness?.path ?? "",
        status: spec.readiness?.status ?? 0,
        timeoutMs: fromDuration(spec.readiness?.timeout, defaultReadinessMs),
      },
      graceMs: fromDuration(spec.stop?.grace, defaultGraceMs),
    };
  }

  /** What this node has not must not be promised: a tenant that needs it is not started without it. */
  #checkRungs({ isolation, limits }: TenantSpec): void {
    if (isolation > Isolation.NONE) {
      throw rpcError(
        Code.FailedPrecondition,
        `spec.isolation: the tenant needs ${Isolation[isolation].toLowerCase()}, and this node has only none`,
      );
    }
    if (
      limits &&
      (limits.memoryBytes > 0n || limits.cpuMillis > 0 || limits.pids > 0 || limits.openFiles > 0)
    ) {
      throw rpcError(
        Code.FailedPrecondition,
        "spec.limits: limits need a node with the rung cgroup, and this node has only none",
      );
    }
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

/** The caller that goes away is answered; what it waited for goes on. */
async function unlessAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
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
