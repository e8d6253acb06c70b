/**
 * One instance on its agent: the production machine (agent/src/machine.ts) with a model of the shell around it. What the
 * shell does to the host is done to the model's processes.
 */
import { describeExit, describeInstance, describeTransition, describeUsage } from "@warren/agent/describe";
import {
  begin,
  bury,
  type Cause,
  type Effect,
  type Input,
  isAtRest,
  type MachineState,
  resume,
  type Step,
  step,
} from "@warren/agent/machine";
import type { InstanceRecord } from "@warren/agent/records";
import { extend } from "@warren/agent/usage";
import {
  type Exit,
  ExitReason,
  type Instance as InstanceMessage,
  type InstanceRef,
} from "@warren/proto/common";
import type { SleepOutcome } from "@warren/scheduler/core/inputs";
import type { Agent } from "./agent.ts";
import { newRecord, type Process } from "./host.ts";

export class AgentInstance {
  #record: InstanceRecord;
  #exit: Exit | undefined;
  /** Raised when what was under way is given up. */
  #starting = 0;
  #draining = 0;
  #killing = 0;
  #settled = false;
  readonly #onSettled: (() => void)[] = [];
  readonly #onGone: (() => void)[] = [];

  private constructor(
    private readonly agent: Agent,
    record: InstanceRecord,
    private readonly readinessMs: number,
  ) {
    this.#record = record;
  }

  static start(
    agent: Agent,
    ref: InstanceRef,
    graceMs: number,
    drainMs: number,
    readinessMs: number,
  ): AgentInstance {
    const first = begin(agent.now);
    const instance = new AgentInstance(
      agent,
      newRecord(ref, first.state, graceMs, drainMs, agent.wall),
      readinessMs,
    );
    agent.host.disk.records.set(ref.id, instance.#record);
    instance.#apply(first);
    return instance;
  }

  /** Goes on with what an agent before left. */
  static adopt(agent: Agent, record: InstanceRecord, readinessMs: number): AgentInstance {
    const instance = new AgentInstance(agent, record, readinessMs);
    const process = instance.process;
    if (!process) {
      instance.#apply(bury(record.state, "its process is gone"));
    } else {
      instance.#catchUp();
      instance.#apply(resume(record.state, 0, process.frozen, agent.now));
    }
    return instance;
  }

  get ref(): InstanceRef {
    return this.#record.ref;
  }

  get state(): MachineState {
    return this.#record.state;
  }

  get process(): Process | undefined {
    return this.agent.host.processes.get(this.ref.id);
  }

  get graceMs(): number {
    return this.#record.graceMs;
  }

  get isAtRest(): boolean {
    return this.state.phase === "ready" && isAtRest(this.state.activity);
  }

  whenSettled(run: () => void): void {
    if (this.#settled) run();
    else this.#onSettled.push(run);
  }

  whenGone(run: () => void): void {
    if (this.state.phase === "exited" || this.state.phase === "refused") run();
    else this.#onGone.push(run);
  }

  stop(cause: Cause, graceMs: number, drainMs: number): void {
    this.dispatch({ kind: "stop", cause, graceMs, drainMs });
  }

  get wakes(): bigint {
    return BigInt(this.state.wakes);
  }

  /** Answers when nothing of it runs, or why not. */
  freeze(pageOut: boolean, reply: (outcome: SleepOutcome) => void): void {
    const { wakes } = this;
    this.dispatch({ kind: "freeze", pageOut });
    this.agent.after(this.agent.rng.between(0.1, 3), () => {
      if (this.state.phase !== "ready" || this.wakes !== wakes) {
        if (this.state.activity === "freezing") this.dispatch({ kind: "not-frozen" });
        reply(
          this.wakes === wakes
            ? { kind: "failed", message: "stopped" }
            : { kind: "thawed", wakes: this.wakes },
        );
        return;
      }
      if (this.process) this.process.frozen = true;
      this.dispatch({ kind: "frozen", pagedOut: pageOut });
      reply({ kind: "done", wakes: this.wakes });
    });
  }

  thaw(): void {
    this.dispatch({ kind: "thaw" });
  }

  /** Its process has ended by itself; noticed a moment later. */
  processEnded(code: number): void {
    this.agent.after(this.agent.rng.between(0.5, 5), () =>
      this.dispatch({ kind: "process-exited", end: { code } }),
    );
  }

  dispatch(input: Input): void {
    if (this.agent.instances.get(this.ref.id) !== this) return;
    this.#catchUp();
    this.#apply(step(this.state, input, this.agent.now));
  }

  reportUsage(): void {
    this.#catchUp();
    this.#save();
    this.agent.append({ case: "usage", value: describeUsage(this.#record, this.#record.counters) });
  }

  toMessage(): InstanceMessage {
    return describeInstance(this.#record, this.#record.counters, this.#exit);
  }

  #apply({ state, effects }: Step): void {
    this.#patch({ state });
    this.#save();
    for (const effect of effects) this.#perform(effect);
    if (state.phase === "refused") this.#over(false);
  }

  #patch(part: Partial<InstanceRecord>): void {
    this.#record = { ...this.#record, ...part };
  }

  #save(): void {
    if (this.agent.host.disk.records.has(this.ref.id))
      this.agent.host.disk.records.set(this.ref.id, this.#record);
  }

  #catchUp(): void {
    const process = this.process;
    if (!process) return;
    const { counters, state } = this.#record;
    const moment = {
      at: this.agent.wall,
      wallMs: this.agent.now - process.spawnedAt,
      wasFrozen: isAtRest(state.activity),
    };
    this.#patch({ counters: extend(counters, moment) });
  }

  #perform(effect: Effect): void {
    const { agent } = this;
    const { host, rng, site } = agent;
    switch (effect.kind) {
      case "prepare": {
        const token = ++this.#starting;
        const behaviour = site.behaviourOf(this.ref.tenant);
        agent.after(rng.between(0.2, 4), () => {
          if (token !== this.#starting) return;
          if (behaviour === "refused") this.dispatch({ kind: "refused", error: "refused" });
          else if (behaviour === "unstartable") this.dispatch({ kind: "unstartable", message: "no entry" });
          else this.dispatch({ kind: "prepared" });
        });
        return;
      }
      case "spawn":
        this.#patch({ port: site.newPort() });
        this.#save();
        site.spawn(host, {
          ref: this.ref,
          behaviour: site.behaviourOf(this.ref.tenant),
          spawnedAt: agent.now,
          port: this.#record.port,
          frozen: false,
          connections: 0,
        });
        this.dispatch({ kind: "spawned" });
        return;
      case "probe":
        this.#probe();
        return;
      case "cancel":
        this.#starting++;
        this.#draining++;
        return;
      case "watch":
        return; // the end of its process is noticed all the same
      case "drain":
        this.#drain(effect.ms);
        return;
      case "freeze":
        return; // see freeze()
      case "thaw":
        if (this.process) this.process.frozen = false;
        return;
      case "end":
        this.#end(effect.graceMs);
        return;
      case "hurry":
        agent.after(effect.graceMs, () => this.#kill());
        return;
      case "tell":
        if (effect.exit) this.#exit = describeExit(effect.exit, () => []);
        agent.append({
          case: "transition",
          value: describeTransition(this.#record, this.#record.counters, effect, this.#exit, 0, agent.wall),
        });
        if (this.state.phase === "exited") this.#over(true);
        return;
      case "settle":
        this.#settled = true;
        for (const run of this.#onSettled.splice(0)) run();
        return;
      default:
        effect satisfies never;
    }
  }

  #probe(): void {
    const { agent } = this;
    const token = ++this.#starting;
    const deadline = agent.now + this.readinessMs;
    const readyIn = agent.rng.log(5, 400);
    const { process } = this;
    if (process?.behaviour === "hangs") {
      agent.after(this.readinessMs, () => {
        if (token !== this.#starting) return;
        this.dispatch({ kind: "not-ready", cause: { reason: ExitReason.READINESS_TIMEOUT } });
      });
      return;
    }
    agent.after(Math.min(readyIn, deadline - agent.now), () => {
      if (token !== this.#starting || !this.process) return; // its end is noticed by itself
      this.dispatch({ kind: "ready" });
    });
  }

  #drain(ms: number): void {
    const { agent } = this;
    const token = ++this.#draining;
    const until = agent.now + ms;
    const look = (): void => {
      if (token !== this.#draining) return;
      if ((this.process?.connections ?? 0) === 0 || agent.now >= until) this.dispatch({ kind: "drained" });
      else agent.after(20, look);
    };
    agent.after(0, look);
  }

  /** SIGTERM, and after the grace SIGKILL; then it looks whether anything is left. */
  #end(graceMs: number): void {
    const { agent } = this;
    const { process } = this;
    if (!process) {
      agent.after(agent.rng.between(0.1, 1), () => this.#kill());
      return;
    }
    process.frozen = false;
    const willing = process.behaviour !== "stubborn" && process.behaviour !== "hangs";
    agent.after(Math.min(graceMs, willing ? agent.rng.between(1, 20) : graceMs), () => this.#kill());
  }

  #kill(): void {
    const { agent } = this;
    const { id } = this.ref;
    if (this.state.phase !== "stopping") return;
    this.#catchUp();
    agent.site.end(agent.host, id);
    const token = ++this.#killing;
    agent.after(agent.rng.between(0.2, 2), () => {
      if (token === this.#killing) this.dispatch({ kind: "gone" });
    });
  }

  #over(ended: boolean): void {
    const { disk } = this.agent.host;
    const { id } = this.ref;
    if (ended) this.agent.remember(id, this.toMessage());
    disk.records.delete(id);
    this.agent.instances.delete(id);
    for (const run of this.#onGone.splice(0)) run();
  }
}
