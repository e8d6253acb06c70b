/** The imperative shell around the machine of one instance: performs its effects and feeds it what happens. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { NothingToRunError } from "@warren/common/entry";
import type { Logger } from "@warren/common/log";
import { Code, ConnectError, rpcError } from "@warren/common/rpc/errors";
import { pause, withDeadline } from "@warren/common/time";
import { openSpan } from "@warren/common/trace";
import {
  type Exit,
  ExitReason,
  type Instance as InstanceMessage,
  type InstanceRef,
  InstanceState,
  Isolation,
  ReadinessKind,
} from "@warren/proto/common";
import { loopback } from "./address.ts";
import { findLeft } from "./adopt.ts";
import { Contact } from "./contact.ts";
import { describeExit, describeInstance, describeTransition, describeUsage, endRemark } from "./describe.ts";
import { diskUse, overDiskLimit } from "./disk.ts";
import { drain } from "./drain.ts";
import { messageOf, removeTree } from "./files.ts";
import { freezeProcesses, isFrozen, thawProcesses } from "./freeze.ts";
import type { Group } from "./host/host.ts";
import { isAlive, type PortOwner } from "./host/kernel.ts";
import { endProcesses, type KillTarget, membersOf, processesOf } from "./kill.ts";
import {
  type Files,
  prepareFiles,
  prepareLaunch,
  type StartPlan,
  socketDirectory,
  type Taken,
} from "./launch.ts";
import type { InstanceLogs } from "./logs.ts";
import {
  begin,
  bury,
  type Cause,
  type Effect,
  type Input,
  isAtRest,
  isThaw,
  type MachineState,
  type Outcome,
  type ProcessEnd,
  resume,
  type Step,
  step,
} from "./machine.ts";
import type { Mechanism } from "./mechanism.ts";
import { pageOutProcesses } from "./pageout.ts";
import type { ReadinessOutcome } from "./readiness.ts";
import type { InstanceRecord } from "./records.ts";
import { removeRemains } from "./remains.ts";
import { takeSample } from "./sample.ts";
import { unwrapExit } from "./sandbox.ts";
import { type Child, type ChildExit, SpawnError } from "./spawn.ts";
import { StartSpan } from "./start-span.ts";
import { thawedSince } from "./thawed.ts";
import { type Counters, extend, noCounters, observe, type Sample, thawed } from "./usage.ts";
import { overSize } from "./volumes/store.ts";
import { type Whereabouts, whereabouts } from "./whereabouts.ts";

export class Instance {
  readonly #m: Mechanism;
  readonly #log: Logger;
  readonly logs: InstanceLogs;
  /** Start times by pid of its processes, as far as they were ever seen. */
  readonly seen = new Map<number, number>();
  #adopted = false;
  /** It went with an earlier boot: this agent's Join proves that, and the scheduler tells of it. */
  #isProvenLost = false;
  #record: InstanceRecord;
  #plan: StartPlan | undefined;
  /** Of its start, until that has come out. */
  #span: StartSpan | undefined;
  #directory = "";
  #files: Files | undefined;
  #preparing: Promise<void> = Promise.resolve();
  #group: Group;
  #counters: Counters;
  /** Monotonic ms at which its process would have been spawned, were it counted by this agent's clock. */
  #spawnedAt: number | undefined;
  /** How its process ended, when it is a child of this agent. */
  #child: Child | undefined;
  #exit: Exit | undefined;
  readonly #contact: Contact;
  readonly #starting = new AbortController();
  readonly #draining = new AbortController();
  readonly #exited = new AbortController();
  #leaveGate: (() => void) | undefined;
  #drainUntil = Number.POSITIVE_INFINITY;
  #killAt = Number.POSITIVE_INFINITY;
  /** The freeze under way, and those that wait for it. */
  #freezing: Promise<number> = Promise.resolve(0);
  /** Its port was seen to be its own. */
  #hasListened = false;
  /** By the last page-out. */
  #reclaimedBytes = 0;
  readonly #settled = Promise.withResolvers<void>();
  readonly #gone = Promise.withResolvers<void>();

  private constructor(m: Mechanism, record: InstanceRecord) {
    this.#m = m;
    this.#record = record;
    this.#counters = record.counters;
    this.#group = m.host.openGroup(record.group);
    this.#log = m.log.child({ instance: record.ref.id, tenant: record.ref.tenant });
    this.logs = m.logs.open(record.ref.tenant, record.ref.id);
    this.#contact = new Contact(m, this.#log, {
      onReady: () => {
        this.#patch({ saidReady: true });
        m.records.save(this.#record);
      },
      onUnhealthy: (message) => void this.stop({ reason: ExitReason.UNHEALTHY, message }, this.graceMs),
      isPaused: () => this.state.activity !== "running",
    });
  }

  /** Accepts an instance: from now on it has a record, and sooner or later an end. */
  static start(m: Mechanism, plan: StartPlan): Instance {
    const first = begin(m.clock.monotonic());
    const { ref, graceMs, drainMs, readiness, liveness, rung, limits, sharesPort } = plan;
    const instance = new Instance(m, {
      version: 1,
      ref,
      state: first.state,
      ...(m.tenantHost === loopback ? {} : { host: m.tenantHost }),
      port: 0,
      group: "",
      rung,
      limits,
      sharesPort,
      graceMs,
      drainMs,
      readiness,
      liveness,
      counters: noCounters(m.clock.now()),
    });
    instance.#plan = plan;
    try {
      m.records.save(instance.#record);
    } catch (error) {
      m.logs.ended(ref.tenant, ref.id);
      throw ourFault(error);
    }
    instance.#span = new StartSpan(ref);
    instance.#apply(first);
    return instance;
  }

  /** Goes on with an instance of an agent that died: watches it if it lives, ends what is left of it if not. */
  static adopt(m: Mechanism, record: InstanceRecord): Instance {
    const instance = new Instance(m, record);
    const { kernel } = m.host;
    instance.#holdShared();
    const snapshot = m.table.snapshot();
    const found = findLeft(record, m.host, snapshot);
    if (found.kind === "dead") {
      // Its times say nothing on this boot's clock.
      const state = found.isOfAnotherBoot ? { ...record.state, since: m.clock.monotonic() } : record.state;
      if (found.isOfAnotherBoot) {
        instance.#patch({ process: undefined });
        instance.#isProvenLost = true;
      }
      instance.#apply(bury(state, found.why));
      return instance;
    }
    const { pid, startTicks } = found.stat;
    instance.#adopted = true;
    otherwise(undefined, () => instance.logs.watchOpens());
    instance.#patch({ process: { pid, startTicks, bootId: kernel.bootId } });
    instance.#spawnedAt = m.clock.monotonic() - Math.max(kernel.ageMs(found.stat), record.counters.wallMs);
    const processes = processesOf(instance.target, snapshot);
    const frozen = isFrozen(instance.target, processes.filter(isAlive));
    // The time in which nobody watched is billed at the memory between what was seen last and what is seen now.
    instance.#counters = observe(
      instance.#counters,
      takeSample(kernel, processes, instance.group, true),
      instance.#moment(),
    );
    try {
      instance.#contact.open(instance.#record);
    } catch (error) {
      instance.#log.error({ why: messageOf(error) }, "a tenant's channel cannot be opened again");
    }
    m.exits.watch({ pid, startTicks }, () =>
      instance.#processExited(
        {},
        {
          reason: ExitReason.UNKNOWN,
          message: "ended; it was adopted, and only an agent that started it could see its exit code",
        },
      ),
    );
    const now = m.clock.monotonic();
    const graceMs = Math.max(0, (record.killBy ?? 0) - now);
    instance.#apply(resume(record.state, graceMs, frozen, now));
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

  get drainMs(): number {
    return this.#record.drainMs ?? 0;
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

  /** Whether nothing of it runs, and nothing but its memory can change. */
  get isAtRest(): boolean {
    return this.state.phase === "ready" && isAtRest(this.state.activity);
  }

  /** Resolves when the start has come out: ready, exited or refused. */
  get settled(): Promise<void> {
    return this.#settled.promise;
  }

  /** Resolves when nothing of it is left, or it was refused. */
  get gone(): Promise<void> {
    return this.#gone.promise;
  }

  stop(cause: Cause, graceMs: number, drainMs = 0): Promise<void> {
    const span = openSpan("instance.stop", {
      "warren.tenant": this.ref.tenant,
      "warren.instance": this.id,
      "warren.reason": ExitReason[cause.reason],
    });
    void this.gone.then(() => span.end());
    this.dispatch({ kind: "stop", cause, graceMs, drainMs });
    return this.gone;
  }

  /**
   * Stops all its processes where they are; answers how much memory the host got back, in bytes.
   * @throws ConnectError ABORTED when a thaw or a stop came in between, UNAVAILABLE when the kernel did not stop them
   */
  freeze(pageOut: boolean): Promise<number> {
    this.dispatch({ kind: "freeze", pageOut });
    return this.#freezing;
  }

  /** It does not keep an agent alive that ends. */
  letGo(): void {
    this.#child?.letGo();
  }

  /** Lets it run, at once. */
  thaw(): void {
    this.dispatch({ kind: "thaw" });
  }

  dispatch(input: Input): void {
    // The agent has let go of it: from now on its files are the next agent's.
    if (this.#m.signal.aborted) return;
    if (input.kind === "process-exited") this.#exited.abort();
    // Whatever changes now, the time until now was as it was.
    this.#catchUp();
    this.#apply(step(this.state, input, this.#m.clock.monotonic()));
  }

  /** Takes what was observed of its processes. */
  observed(sample: Sample): void {
    this.#counters = observe(this.#counters, sample, this.#moment());
    if (this.state.phase !== "stopping" && this.#lacksMemory()) {
      void this.stop({ reason: ExitReason.OOM_KILLED, message: this.#outOfMemory() }, oomGraceMs);
    }
  }

  /** Of one that is frozen nothing changes but the time, and its memory where that is cheap to know. */
  rested(): void {
    this.#catchUp();
    const memoryBytes = this.#group.memoryBytes();
    if (memoryBytes !== undefined) this.#counters = { ...this.#counters, memoryBytes };
  }

  /** Looks at what its volumes hold, and its directory, if that is limited. */
  async checkDisk(): Promise<void> {
    const { diskBytes } = this.#record.limits;
    const runs = () => this.state.phase === "ready" || this.state.phase === "starting";
    for (const { id, name, limitBytes } of this.#record.volumes ?? []) {
      const over = runs() ? overSize(name, await this.#m.volumes.measure(id), limitBytes) : undefined;
      if (over && runs()) void this.stop({ reason: ExitReason.LIMIT, message: over }, this.graceMs);
    }
    if (diskBytes === 0 || !runs()) return;
    const uses = [await diskUse(this.#home), await diskUse(this.#m.caches.directoryOf(this.ref))];
    const over = overDiskLimit(uses, diskBytes);
    // A stop that began meanwhile has a grace of its own.
    if (over && runs()) void this.stop({ reason: ExitReason.LIMIT, message: over }, this.graceMs);
  }

  /** Tells the scheduler its counters. */
  reportUsage(): void {
    this.#m.spool.append(
      { case: "usage", value: describeUsage(this.#record, this.#counters) },
      this.#m.clock.now(),
    );
  }

  toMessage(): InstanceMessage {
    return describeInstance(this.#record, this.#counters, this.#exit);
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
        this.#preparing = this.#prepare();
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
        this.#draining.abort();
        this.#leaveGate?.();
        return;
      case "watch":
        if (effect.on) {
          const readyForMs = this.#adopted ? Math.max(0, this.#m.clock.monotonic() - this.state.since) : 0;
          this.#contact.watch(this.#record, readyForMs);
        } else this.#contact.unwatch();
        return;
      case "drain":
        this.#drainWithin(effect.ms);
        return;
      case "freeze": {
        const { wakes } = this.state;
        this.#freezing = this.#freezing.then(
          () => this.#freeze(effect.pageOut, wakes),
          () => this.#freeze(effect.pageOut, wakes),
        );
        this.#freezing.catch(() => undefined); // whoever asked is told
        return;
      }
      case "thaw":
        thawProcesses(this.target, this.#m.host.kernel);
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
    this.#patch({ killBy: at });
  }

  async #prepare(): Promise<void> {
    const { signal } = this.#starting;
    const began = this.#m.clock.monotonic();
    try {
      const { source } = this.#plan!;
      this.#directory =
        source.kind === "directory" ? source.path : await this.#m.releases.ensure(source.digest);
      if (signal.aborted) return;
      const take = (taken: Partial<Taken>) => this.#patch(taken);
      this.#files = await prepareFiles(this.#m, this.#plan!, this.#directory, take);
      this.#directory = this.#files?.directory ?? this.#directory;
      const fetched = this.#m.clock.monotonic();
      this.#leaveGate = await this.#m.gate.enter(signal);
      const queueMs = this.#m.clock.monotonic() - fetched;
      this.#patch({ phases: { fetchMs: fetched - began, queueMs, spawnMs: 0, listenMs: 0, answerMs: 0 } });
    } catch (error) {
      if (signal.aborted) this.#letGoOfFiles();
      if (error instanceof SpawnError) this.dispatch({ kind: "unstartable", message: error.message });
      else this.dispatch({ kind: "refused", error: ourFault(error) });
      return;
    }
    if (signal.aborted) {
      this.#leaveGate?.();
      if (this.#files) this.#letGoOfFiles(); // what was taken after the stop
    } else if (this.#leaveGate) this.dispatch({ kind: "prepared" });
  }

  #spawn(): void {
    const plan = this.#plan!;
    const began = this.#m.clock.monotonic();
    try {
      const files = { ...this.#files, directory: this.#directory };
      const launch = prepareLaunch(this.#m, plan, files, this.#span?.traceparent, (taken) =>
        this.#patch(taken),
      );
      this.#group = launch.group;
      // Before the spawn: should the agent die in the middle of it, the next one knows what to look for.
      this.#patch(launch.taken);
      this.#m.records.save(this.#record);
      this.#contact.open(this.#record);
      const child = launch.spawn(this.logs.path("stdout"), this.logs.path("stderr"));
      this.#spawnedAt = this.#m.clock.monotonic();
      // A full disk, say, is no reason not to run: it may only lose lines when it opens its output anew.
      otherwise(undefined, () => this.logs.watchOpens());
      const { bootId } = this.#m.host.kernel;
      this.#patch({
        process: { pid: child.pid, startTicks: child.startTicks, bootId },
        startedAt: this.#m.clock.now(),
        phases: this.#record.phases && { ...this.#record.phases, spawnMs: this.#spawnedAt - began },
      });
      this.#child = child;
      void child.exited.then(({ cpuUs: _, ...end }) => this.#processExited(end));
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

  #processExited(end: ProcessEnd, cause?: Cause): void {
    const oom = this.#lacksMemory();
    this.dispatch({
      kind: "process-exited",
      end: unwrapExit(end, this.#record.wrapper),
      cause: oom ? { reason: ExitReason.OOM_KILLED, message: this.#outOfMemory() } : cause,
      instead: this.#instead,
    });
  }

  /** What it has yet to do to become ready; undefined where it has, or need not do anything. */
  get #instead(): string | undefined {
    const { readiness, port } = this.#record;
    if (readiness.kind === ReadinessKind.NONE || this.#hasListened) return undefined;
    if (readiness.kind === ReadinessKind.MESSAGE) return "saying that it is ready";
    return `listening on PORT (${port})`;
  }

  /** Whether the kernel killed any process of it for want of memory; when that cannot be read, not that we know. */
  #lacksMemory(): boolean {
    return otherwise(false, () => this.#group.oomKills() > 0);
  }

  #outOfMemory(): string {
    const { memoryBytes } = this.#record.limits;
    if (memoryBytes === 0) return "the host had no memory left, and the kernel chose it";
    return `it used more memory than its limit of ${memoryBytes} bytes`;
  }

  async #probe(): Promise<void> {
    const { port, readiness } = this.#record;
    const outcome = await this.#m.readiness(readiness, port, this.#contact.saidReady).wait(
      {
        // What cannot be read now (no file descriptor left, say) is asked again until the deadline.
        owner: () => {
          const owner = otherwise<PortOwner>({ kind: "nobody" }, () => this.#portOwner(port));
          this.#hasListened ||= owner.kind === "instance";
          return owner;
        },
        whereabouts: () => otherwise<Whereabouts>({ kind: "silent" }, () => this.#whereabouts(port)),
        tenantHost: this.#m.tenantHost,
      },
      // An adopted one may have had its time while no agent was there to ask: it gets a last chance.
      Math.max(this.#adopted ? lastChanceMs : 0, readiness.timeoutMs - this.#moment().wallMs),
      this.#starting.signal,
    );
    this.#probed(outcome);
  }

  #probed(outcome: ReadinessOutcome): void {
    switch (outcome.kind) {
      case "ready": {
        const { listenMs, answerMs, address } = outcome;
        // Where the agent reaches it otherwise than at loopback, so do gateways of this host.
        const isLocal = this.#m.tenantHost === loopback;
        if (address !== undefined) this.#patch({ address, ...(isLocal ? { host: address } : {}) });
        const { phases } = this.#record;
        this.#patch({
          startDurationMs: this.#moment().wallMs,
          phases: phases && { ...phases, listenMs, answerMs },
        });
        this.dispatch({ kind: "ready" });
        return;
      }
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

  #portOwner(port: number): PortOwner {
    const { kernel } = this.#m.host;
    if (this.#record.sharesPort) {
      const own = kernel.listenersOf(this.#pids());
      if (!own.some((listener) => listener.port === port)) return { kind: "nobody" };
      const all = this.#m.instancesOf(this.ref.tenant).flatMap((instance) => instance.#pids());
      return kernel.ownerOf(port, all);
    }
    // Nearly always its first processes listen: the whole table is read only if not.
    const quick = kernel.ownerOf(port, this.#quickPids());
    return quick.kind === "stranger" ? kernel.ownerOf(port, this.#pids()) : quick;
  }

  #whereabouts(port: number): Whereabouts {
    const { kernel } = this.#m.host;
    const quick = kernel.listenersOf(this.#quickPids());
    const own = quick.length > 0 ? quick : kernel.listenersOf(this.#pids());
    return whereabouts(own, port, this.#m.tenantHost);
  }

  /** Those of its processes that cost no look at the whole table. */
  #quickPids(): number[] {
    const { process } = this.#record;
    return this.#group.path === "" ? (process ? [process.pid] : []) : this.#group.listPids();
  }

  /** Until nobody is connected to its port, or the least time that was asked for has passed. */
  #drainWithin(ms: number): void {
    const isFirst = this.#drainUntil === Number.POSITIVE_INFINITY;
    this.#drainUntil = Math.min(this.#drainUntil, this.#m.clock.monotonic() + ms);
    if (isFirst) void this.#drain();
  }

  async #drain(): Promise<void> {
    const signal = AbortSignal.any([this.#draining.signal, this.#m.signal]);
    const { kernel } = this.#m.host;
    const { port } = this.#record;
    const until = () => this.#drainUntil;
    await drain({ kernel, port, until, clock: this.#m.clock, log: this.#log }, signal);
    if (!signal.aborted) this.dispatch({ kind: "drained" });
  }

  /** @param wakes as they were when it was asked for: a thaw since has undone it */
  async #freeze(pageOut: boolean, wakes: number): Promise<number> {
    const isWanted = () => this.state.phase === "ready" && this.state.wakes === wakes;
    const interrupted = () =>
      rpcError(
        Code.Aborted,
        `instance ${this.id} was thawed or stopped meanwhile`,
        ...(this.state.wakes === wakes ? [] : [thawedSince(this.state.wakes)]),
      );
    const { kernel } = this.#m.host;
    if (!isWanted()) throw interrupted();
    if (!this.isAtRest) {
      const frozen = await freezeProcesses(this.target, this.#m.table, isWanted).catch((error: unknown) => {
        this.#log.warn({ why: messageOf(error) }, "freezing failed");
        return false;
      });
      if (!frozen) {
        if (!isWanted()) throw interrupted();
        this.dispatch({ kind: "not-frozen" });
        throw rpcError(
          Code.Unavailable,
          `instance ${this.id} could not be frozen: the kernel did not stop it in time`,
        );
      }
      this.#measure();
      this.dispatch({ kind: "frozen", pagedOut: false });
    }
    if (!pageOut || !otherwise(false, () => kernel.hasSwap()) || this.state.activity === "paged-out")
      return 0;
    const before = this.#counters.memoryBytes;
    try {
      const paging = this.#group.pageOut?.() ?? pageOutProcesses(this.#pids(), isWanted);
      await withDeadline(paging, pageOutMs, "paging out");
    } catch (error) {
      // What it got back until now counts, and is measured.
      this.#log.warn({ why: messageOf(error) }, "paging out was not finished");
    }
    if (!isWanted()) throw interrupted();
    this.#measure();
    this.#reclaimedBytes = Math.max(0, before - this.#counters.memoryBytes);
    this.dispatch({ kind: "frozen", pagedOut: true });
    return this.#reclaimedBytes;
  }

  /** All of it, now, if it can be read: a freeze does not depend on it. */
  #measure(): void {
    otherwise(undefined, () => this.#measureAll());
  }

  #measureAll(): void {
    const members = processesOf(this.target, this.#m.table.snapshot());
    if (members.length > 0) this.observed(takeSample(this.#m.host.kernel, members, this.#group, true));
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
    const nothingLeft = await endProcesses(this.target, this.#m.table, {
      found: (members) => {
        if (members.length === 0) return;
        const whole = this.#counters.pssBytes === 0;
        this.observed(takeSample(this.#m.host.kernel, members, this.#group, whole));
      },
      graceLeftMs: () => this.#killAt - this.#m.clock.monotonic(),
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
      this.#child?.exited ?? Promise.resolve({}),
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

  #tell(tell: Extract<Effect, { kind: "tell" }>): void {
    const { exit, to, from, toMode } = tell;
    if (exit) this.#exit = describeExit(exit, () => this.logs.lastOutput(), this.#directory);
    // Up to this moment: one that dies before its first observation, agent and all, has at least its time on record.
    this.#catchUp();
    if (isThaw(tell)) this.#counters = thawed(this.#counters);
    if (!this.#isProvenLost) this.#spoolTransition(tell);
    if (from === to) this.#log.debug({ mode: toMode }, "an instance changed its mode");
    else if (to === InstanceState.READY) this.#tellReady();
    if (exit) this.#bury(from, exit);
  }

  #spoolTransition(tell: Extract<Effect, { kind: "tell" }>): void {
    const now = this.#m.clock.now();
    const value = describeTransition(
      this.#record,
      this.#counters,
      tell,
      this.#exit,
      this.#reclaimedBytes,
      now,
    );
    this.#m.spool.append({ case: "transition", value }, now);
  }

  #tellReady(): void {
    const { port, process, phases, startDurationMs } = this.#record;
    this.#m.metrics.started(startDurationMs ?? 0, phases);
    this.#log.info(
      { port, startPid: process?.pid, startMs: Math.round(startDurationMs ?? 0) },
      "an instance is ready",
    );
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
    this.#span?.end(this.#record, this.#m.clock.now());
    if (phase === "refused") {
      this.#group.remove();
      this.#forget();
    }
    this.#settled.resolve();
    if (phase === "refused" || phase === "exited") this.#gone.resolve();
  }

  /** Before its port, and with it its uid, is anybody else's. */
  async #removeRemains(): Promise<void> {
    const { uid, rung, process, sharesPort } = this.#record;
    if (uid === undefined || !process || sharesPort || rung >= Isolation.NAMESPACE) return;
    try {
      await removeRemains({ uid, gid: uid });
    } catch (error) {
      this.#log.warn({ why: messageOf(error) }, "what an instance left outside its directory is still there");
    }
  }

  /** Gives back all that it held. */
  #forget(): void {
    const { ref, port } = this.#record;
    this.#contact.close();
    removeTree(socketDirectory(this.#m, ref.id));
    this.#m.records.remove(ref.id);
    // And nothing more is being given to its uid.
    void Promise.all([this.#preparing, this.#removeRemains()]).then(() =>
      this.#m.ports.release(port, ref.id),
    );
    this.#m.caches.release(ref);
    this.#m.logs.ended(ref.tenant, ref.id, this.#exit && endRemark(this.#exit));
    this.#letGoOfFiles();
  }

  #letGoOfFiles(): void {
    for (const { id } of this.#record.volumes ?? []) this.#m.volumes.release(id, this.id);
    for (const path of [this.#home, join(this.#m.views, this.id)]) {
      rm(path, { recursive: true, force: true }).catch((error: unknown) =>
        this.#log.warn({ why: messageOf(error), path }, "an instance's files could not be removed"),
      );
    }
  }

  get #home(): string {
    return join(this.#m.homes, this.id);
  }

  #holdShared(): void {
    const { port, uid, sharesPort, ref } = this.#record;
    if (port > 0) this.#m.ports.adopt(port, ref.id, sharesPort ? ref.tenant : undefined);
    this.#m.caches.adopt(ref, uid);
    for (const { id } of this.#record.volumes ?? []) this.#m.volumes.adopt(id, ref.id);
  }

  /** What its processes are known by. */
  get target(): KillTarget {
    const { process, uid, wrapper, sharesPort } = this.#record;
    return {
      id: this.id,
      main: process,
      // Shared it names more than this one's.
      uid: sharesPort ? undefined : uid,
      isOwned: uid !== undefined,
      wrapper,
      group: this.#group,
      seen: this.seen,
    };
  }

  #pids(): number[] {
    return membersOf(this.target, this.#m.table.snapshot()).map((stat) => stat.pid);
  }

  #moment() {
    const wallMs =
      this.#spawnedAt === undefined ? this.#counters.wallMs : this.#m.clock.monotonic() - this.#spawnedAt;
    return { at: this.#m.clock.now(), wallMs, wasFrozen: isAtRest(this.state.activity) };
  }

  #catchUp(): void {
    this.#counters = extend(this.#counters, this.#moment());
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

/** For what may fail when the host has no descriptors or memory left, and must not stop what it is part of. */
function otherwise<T>(value: T, read: () => T): T {
  try {
    return read();
  } catch {
    return value;
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
/** The heaviest app that was measured takes 250 ms. */
const pageOutMs = 10_000;
/** One that has lost a process for want of memory is broken already. */
const oomGraceMs = 1_000;
