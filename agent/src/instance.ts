/** The imperative shell around the machine of one instance: performs its effects and feeds it what happens. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import type { Logger } from "@warren/common/log";
import { Code, ConnectError, rpcError } from "@warren/common/rpc/errors";
import { pause, toDuration, toTimestamp, withDeadline } from "@warren/common/time";
import {
  EndpointSchema,
  type Exit,
  ExitReason,
  ExitSchema,
  type Instance as InstanceMessage,
  InstanceMode,
  type InstanceRef,
  InstanceSchema,
  InstanceState,
  TransitionSchema,
  UsageReportSchema,
} from "@warren/proto/common";
import { NothingToRunError, resolveCommand, tenantEnvironment } from "./command.ts";
import { messageOf } from "./files.ts";
import type { Group } from "./host/host.ts";
import { endProcesses, membersOf } from "./kill.ts";
import { ownerOf, portsOf } from "./listener.ts";
import type { InstanceLogs } from "./logs.ts";
import {
  begin,
  bury,
  type Effect,
  type Input,
  type MachineState,
  type Outcome,
  resume,
  type Step,
  step,
} from "./machine.ts";
import type { Mechanism } from "./mechanism.ts";
import { isAlive, readUptimeMs, ticksPerSecond } from "./procfs.ts";
import { awaitReady } from "./readiness.ts";
import type { InstanceRecord } from "./records.ts";
import { takeSample } from "./sample.ts";
import { type ChildExit, SpawnError, spawnTenant } from "./spawn.ts";
import { type Counters, extend, noCounters, observe, type Sample, toUsage } from "./usage.ts";

/** What is to be run; only needed until the spawn, and never written to disk. */
export interface StartPlan {
  readonly ref: InstanceRef;
  readonly source:
    | { readonly kind: "directory"; readonly path: string }
    | { readonly kind: "release"; readonly digest: string };
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly readiness: { readonly path: string; readonly status: number; readonly timeoutMs: number };
  readonly graceMs: number;
}

export class Instance {
  readonly #m: Mechanism;
  readonly #log: Logger;
  readonly logs: InstanceLogs;
  /** Start times by pid of its processes, as far as they were ever seen. */
  readonly seen = new Map<number, number>();
  #adopted = false;
  #record: InstanceRecord;
  #plan: StartPlan | undefined;
  #directory = "";
  #group: Group;
  #counters: Counters;
  /** Monotonic ms at which its process would have been spawned, were it counted by this agent's clock. */
  #spawnedAt: number | undefined;
  /** How its process ended, when it is a child of this agent. */
  #child: Promise<ChildExit> | undefined;
  #exit: Exit | undefined;
  readonly #starting = new AbortController();
  readonly #exited = new AbortController();
  #leaveGate: (() => void) | undefined;
  #killAt = Number.POSITIVE_INFINITY;
  readonly #settled = Promise.withResolvers<void>();
  readonly #gone = Promise.withResolvers<void>();

  private constructor(m: Mechanism, record: InstanceRecord) {
    this.#m = m;
    this.#record = record;
    this.#counters = record.counters;
    this.#group = m.host.openGroup(record.group);
    this.#log = m.log.child({ instance: record.ref.id, tenant: record.ref.tenant });
    this.logs = m.logs.open(record.ref.tenant, record.ref.id);
  }

  /** Accepts an instance: from now on it has a record, and sooner or later an end. */
  static start(m: Mechanism, plan: StartPlan): Instance {
    const now = m.clock.now();
    const first = begin(now);
    const instance = new Instance(m, {
      version: 1,
      ref: plan.ref,
      state: first.state,
      port: 0,
      group: "",
      graceMs: plan.graceMs,
      readiness: plan.readiness,
      counters: noCounters(now),
    });
    instance.#plan = plan;
    try {
      m.records.save(instance.#record);
    } catch (error) {
      m.logs.ended(plan.ref.tenant, plan.ref.id);
      throw ourFault(error);
    }
    instance.#apply(first);
    return instance;
  }

  /** Goes on with an instance of an agent that died: watches it if it lives, ends what is left of it if not. */
  static adopt(m: Mechanism, record: InstanceRecord): Instance {
    const instance = new Instance(m, record);
    if (record.port > 0) m.ports.adopt(record.port, record.ref.id);
    const named = record.process;
    const sameBoot = named?.bootId === m.bootId;
    const stat = named && sameBoot ? m.table.snapshot().stats.get(named.pid) : undefined;
    if (!named || !stat || stat.startTicks !== named.startTicks || !isAlive(stat)) {
      const why =
        named && !sameBoot
          ? "the host was booted anew"
          : named
            ? "its process ended while no agent was there to see how"
            : record.port > 0
              ? "the agent died while it spawned this instance"
              : "the agent died before it could spawn this instance";
      // Another boot: its pids and start times mean nothing here, and what it left is gone with that kernel.
      if (named && !sameBoot) instance.#patch({ process: undefined });
      instance.#apply(bury(record.state, why));
      return instance;
    }
    instance.#adopted = true;
    const aliveMs = readUptimeMs() - (named.startTicks / ticksPerSecond) * 1000;
    instance.#spawnedAt = m.clock.monotonic() - Math.max(aliveMs, record.counters.wallMs);
    // The time in which nobody watched is billed at the memory that was seen last.
    instance.#counters = extend(instance.#counters, instance.#moment());
    m.exits.watch(named, () =>
      instance.dispatch({
        kind: "process-exited",
        end: {},
        cause: {
          reason: ExitReason.UNKNOWN,
          message: "ended; it was adopted, and only an agent that started it could see its exit code",
        },
      }),
    );
    instance.#apply(resume(record.state, Math.max(0, (record.killAt ?? 0) - m.clock.now())));
    return instance;
  }

  get id(): string {
    return this.#record.ref.id;
  }

  get ref(): InstanceRef {
    return this.#record.ref;
  }

  get state(): MachineState {
    return this.#record.state;
  }

  get graceMs(): number {
    return this.#record.graceMs;
  }

  get group(): Group {
    return this.#group;
  }

  get counters(): Counters {
    return this.#counters;
  }

  /** Whether a process of it may be alive. */
  get isSpawned(): boolean {
    return this.#record.process !== undefined && this.state.phase !== "exited";
  }

  get main(): { pid: number; startTicks: number } | undefined {
    return this.#record.process;
  }

  /** Resolves when the start has come out: ready, exited or refused. */
  get settled(): Promise<void> {
    return this.#settled.promise;
  }

  /** Resolves when nothing of it is left, or it was refused. */
  get gone(): Promise<void> {
    return this.#gone.promise;
  }

  stop(reason: ExitReason, graceMs: number, message?: string): Promise<void> {
    this.dispatch({ kind: "stop", cause: { reason, message }, graceMs });
    return this.gone;
  }

  dispatch(input: Input): void {
    // The agent has let go of it: from now on its files are the next agent's.
    if (this.#m.signal.aborted) return;
    if (input.kind === "process-exited") this.#exited.abort();
    this.#apply(step(this.state, input, this.#m.clock.now()));
  }

  /** Takes what was observed of its processes. */
  observed(sample: Sample): void {
    this.#counters = observe(this.#counters, sample, this.#moment());
  }

  /** Tells the scheduler its counters, and keeps them for the next agent. */
  reportUsage(): void {
    this.#save();
    this.#m.spool.append(
      {
        case: "usage",
        value: create(UsageReportSchema, {
          instance: this.ref,
          at: toTimestamp(this.#counters.at),
          usage: toUsage(this.#counters),
        }),
      },
      this.#m.clock.now(),
    );
  }

  toMessage(): InstanceMessage {
    const { state, port, process, startedAt, startDurationMs } = this.#record;
    // A process that ended by itself is told as STOPPING here, so that nobody routes to it.
    const shown = state.phase === "stopping" ? InstanceState.STOPPING : state.told;
    return create(InstanceSchema, {
      ref: this.ref,
      state: shown,
      mode: shown === InstanceState.READY ? InstanceMode.ACTIVE : InstanceMode.UNSPECIFIED,
      endpoint: port > 0 ? create(EndpointSchema, { host: "127.0.0.1", port }) : undefined,
      pid: process?.pid ?? 0,
      startedAt: startedAt === undefined ? undefined : toTimestamp(startedAt),
      startDuration: startDurationMs === undefined ? undefined : toDuration(startDurationMs),
      usage: toUsage(this.#counters),
      exit: this.#exit,
    });
  }

  #apply({ state, effects }: Step): void {
    const changed = state !== this.#record.state || effects.length > 0;
    this.#patch({ state });
    for (const effect of effects) this.#perform(effect);
    // An effect may have led on already; then that step has saved what came of it.
    const over = state.phase === "exited" || state.phase === "refused";
    if (changed && !over && this.state === state) this.#save();
  }

  #perform(effect: Effect): void {
    switch (effect.kind) {
      case "prepare":
        void this.#prepare();
        return;
      case "spawn":
        this.#spawn();
        return;
      case "probe":
        this.#probe().catch((error: unknown) =>
          this.dispatch({
            kind: "not-ready",
            cause: {
              reason: ExitReason.READINESS_TIMEOUT,
              message: `its readiness could not be seen: ${messageOf(error)}`,
            },
          }),
        );
        return;
      case "cancel":
        this.#starting.abort();
        this.#leaveGate?.();
        return;
      case "end":
        this.#killWithin(effect.graceMs);
        void this.#end();
        return;
      case "hurry":
        this.#killWithin(effect.graceMs);
        return;
      case "tell":
        this.#tell(effect);
        return;
      case "settle":
        this.#settle();
        return;
    }
  }

  #killWithin(graceMs: number): void {
    const at = this.#m.clock.monotonic() + graceMs;
    if (at >= this.#killAt) return;
    this.#killAt = at;
    this.#patch({ killAt: this.#m.clock.now() + graceMs });
  }

  async #prepare(): Promise<void> {
    const { signal } = this.#starting;
    try {
      const { source } = this.#plan!;
      this.#directory =
        source.kind === "directory" ? source.path : await this.#m.releases.ensure(source.digest);
      this.#leaveGate = await this.#m.gate.enter(signal);
    } catch (error) {
      this.dispatch({ kind: "refused", error: ourFault(error) });
      return;
    }
    if (this.#leaveGate) this.dispatch({ kind: "prepared" });
  }

  #spawn(): void {
    const plan = this.#plan!;
    const { id, tenant } = this.ref;
    const home = join(this.#m.homes, id);
    try {
      const command = resolveCommand(this.#directory, plan.command, this.#m.bun.path);
      const port = this.#m.ports.take(id);
      this.#group = this.#m.host.createGroup(id);
      // Before the spawn: should the agent die in the middle of it, the next one knows what to look for.
      this.#patch({ port, group: this.#group.path });
      this.#m.records.save(this.#record);
      const child = spawnTenant({
        command,
        directory: this.#directory,
        env: tenantEnvironment({
          env: plan.env,
          port,
          instance: id,
          tenant,
          node: this.#m.node,
          home,
          tmp: join(home, "tmp"),
          bun: this.#m.bun,
        }),
        privateDirectories: [home, join(home, "tmp")],
        stdout: this.logs.path("stdout"),
        stderr: this.logs.path("stderr"),
        cgroup: this.#group.spawnInto,
      });
      this.#spawnedAt = this.#m.clock.monotonic();
      this.#patch({
        process: { pid: child.pid, startTicks: child.startTicks, bootId: this.#m.bootId },
        startedAt: this.#m.clock.now(),
      });
      this.#child = child.exited;
      void child.exited.then(({ cpuUs: _, ...end }) => this.dispatch({ kind: "process-exited", end }));
    } catch (error) {
      if (error instanceof NothingToRunError || error instanceof SpawnError) {
        this.dispatch({ kind: "unstartable", message: error.message });
      } else {
        this.dispatch({ kind: "refused", error: ourFault(error) });
      }
      return;
    }
    this.#plan = undefined; // the environment is not needed any more, and may hold secrets
    this.dispatch({ kind: "spawned" });
  }

  async #probe(): Promise<void> {
    const { port, readiness } = this.#record;
    const pids = () => membersOf(this.#target(), this.#m.table.snapshot()).map((stat) => stat.pid);
    const outcome = await awaitReady(
      { port, ...readiness },
      {
        owner: () => {
          // Nearly always the first process itself listens: the whole table is read only if not.
          const quick = this.main && ownerOf(port, [this.main.pid]);
          return quick && quick.kind !== "stranger" ? quick : ownerOf(port, pids());
        },
        otherPorts: () => portsOf(pids()),
      },
      // An adopted one may have had its time while no agent was there to ask: it gets a last chance.
      Math.max(this.#adopted ? lastChanceMs : 0, readiness.timeoutMs - this.#moment().wallMs),
      this.#starting.signal,
    );
    switch (outcome.kind) {
      case "ready":
        this.#patch({ startDurationMs: this.#moment().wallMs });
        this.dispatch({ kind: "ready" });
        return;
      case "stranger":
      case "timeout":
        this.dispatch({
          kind: "not-ready",
          cause: { reason: ExitReason.READINESS_TIMEOUT, message: outcome.message },
        });
        return;
      case "aborted":
        return;
    }
  }

  /** Until nothing is left: what fails (no file descriptor for /proc, say) is tried again. */
  async #end(): Promise<void> {
    while (!this.#m.signal.aborted) {
      try {
        await this.#endOnce();
        return;
      } catch (error) {
        this.#log.error({ why: messageOf(error) }, "ending an instance failed; it is tried again");
        await pause(endAgainMs, this.#m.signal);
      }
    }
  }

  async #endOnce(): Promise<void> {
    let cpuUs = 0;
    const nothingLeft = await endProcesses(this.#target(), this.#m.table, {
      found: (members) => {
        if (members.length === 0) return;
        this.observed(takeSample(members, this.#group, this.#counters.pssBytes === 0));
      },
      killAt: () => this.#killAt,
      exited: this.#exited.signal,
      empty: () => {
        cpuUs = this.#group.cpuUs() ?? 0;
      },
      stuck: (left) =>
        this.#log.error(
          { pids: left.map((stat) => stat.pid) },
          "processes withstand SIGKILL (waiting in the kernel, or another user's); the instance is not called gone",
        ),
      signal: this.#m.signal,
    });
    if (!nothingLeft) return; // the agent ends; the next one finds the record and goes on
    // The kernel has told us that our child is gone; Bun may tell how only at one of its next turns.
    const exit = await withDeadline<ChildExit>(
      this.#child ?? Promise.resolve({}),
      childExitMs,
      "the exit status",
    ).catch((error: unknown): ChildExit => {
      this.#log.warn({ why: messageOf(error) }, "an instance is gone, but how it ended is not known");
      return {};
    });
    // Of a group all CPU is known; else that of the first process and of the children it reaped.
    this.#counters = extend(this.#counters, this.#moment(), cpuUs || exit.cpuUs);
    this.dispatch({ kind: "gone" });
  }

  #tell({ from, to, afterMs, exit }: Extract<Effect, { kind: "tell" }>): void {
    const { port, process } = this.#record;
    if (exit) this.#exit = this.#describe(exit);
    // Up to this moment: one that dies before its first observation, agent and all, has at least its time on record.
    this.#counters = extend(this.#counters, this.#moment());
    const now = this.#m.clock.now();
    this.#m.spool.append(
      {
        case: "transition",
        value: create(TransitionSchema, {
          instance: this.ref,
          from,
          to,
          fromMode: from === InstanceState.READY ? InstanceMode.ACTIVE : InstanceMode.UNSPECIFIED,
          toMode: to === InstanceState.READY ? InstanceMode.ACTIVE : InstanceMode.UNSPECIFIED,
          at: toTimestamp(now),
          after: toDuration(afterMs),
          endpoint: port > 0 ? create(EndpointSchema, { host: "127.0.0.1", port }) : undefined,
          pid: process?.pid ?? 0,
          exit: this.#exit,
          usage: toUsage(this.#counters),
        }),
      },
      now,
    );
    if (to === InstanceState.READY) {
      const startMs = this.#record.startDurationMs ?? 0;
      this.#m.metrics.starts.inc({ outcome: "ready" });
      this.#m.metrics.startSeconds.observe(startMs / 1000);
      this.#log.info({ port, startPid: process?.pid, startMs: Math.round(startMs) }, "an instance is ready");
    }
    if (exit) this.#bury(from, exit);
  }

  /** Its end is in the spool: now, in this order, it can neither start again nor be reported twice. */
  #bury(from: InstanceState, exit: Outcome): void {
    const reason = ExitReason[exit.reason].toLowerCase();
    if (from < InstanceState.READY) this.#m.metrics.starts.inc({ outcome: reason });
    this.#m.metrics.exits.inc({ reason });
    this.#log.info(
      { reason, code: exit.code, signal: exit.signal, why: exit.message },
      "an instance has ended",
    );
    this.#m.ended.add(this.toMessage());
    this.#forget();
  }

  #settle(): void {
    this.#leaveGate?.();
    const { phase } = this.state;
    if (phase === "refused") {
      this.#group.remove();
      this.#forget();
    }
    this.#settled.resolve();
    if (phase === "refused" || phase === "exited") this.#gone.resolve();
  }

  /** Gives back all that it held. */
  #forget(): void {
    const { ref, port } = this.#record;
    this.#m.records.remove(ref.id);
    this.#m.ports.release(port, ref.id);
    this.#m.logs.ended(ref.tenant, ref.id);
    const home = join(this.#m.homes, ref.id);
    rm(home, { recursive: true, force: true }).catch((error: unknown) =>
      this.#log.warn({ why: messageOf(error), home }, "an instance's files could not be removed"),
    );
  }

  #describe(exit: Outcome): Exit {
    const asked = [
      ExitReason.CRASHED,
      ExitReason.EXITED_CLEAN,
      ExitReason.READINESS_TIMEOUT,
      ExitReason.OOM_KILLED,
      ExitReason.UNKNOWN,
    ];
    return create(ExitSchema, {
      reason: exit.reason,
      code: exit.code,
      signal: exit.signal ?? "",
      message: exit.message ?? "",
      // Of one that was told to go, nobody asks why.
      lastOutput: asked.includes(exit.reason) ? this.logs.lastOutput() : [],
    });
  }

  #target() {
    return { id: this.id, main: this.main, group: this.#group, seen: this.seen };
  }

  #moment() {
    const wallMs =
      this.#spawnedAt === undefined ? this.#counters.wallMs : this.#m.clock.monotonic() - this.#spawnedAt;
    return { at: this.#m.clock.now(), wallMs };
  }

  #patch(change: Partial<InstanceRecord>): void {
    this.#record = { ...this.#record, ...change };
  }

  #save(): void {
    this.#patch({ counters: this.#counters });
    try {
      this.#m.records.save(this.#record);
    } catch (error) {
      // A full disk must not end a tenant. The record before it names the same process; only the state is older.
      this.#log.error({ why: messageOf(error) }, "an instance's record cannot be written");
    }
  }
}

/** What a caller is told when the node, not the tenant, could not do it: another node may. */
function ourFault(error: unknown): ConnectError {
  if (error instanceof ConnectError) return error;
  return rpcError(Code.Unavailable, `this node could not start it: ${messageOf(error)}`);
}

/** An adopted instance that was starting is asked for at least this long. */
const lastChanceMs = 2_000;
const childExitMs = 2_000;
const endAgainMs = 1_000;
