/**
 * One scheduler process: the production core, in a model of its shell (engine.ts, services/, watchers.ts). It may be a
 * leader, or one that was replaced and has not noticed yet.
 */
import { create } from "@bufbuild/protobuf";
import { fromDuration } from "@warren/common/time";
import { ExitReason, type Instance, NodeChange, type NodePressure } from "@warren/proto/common";
import {
  EndpointUpdate,
  EndpointVersionSchema,
  type EnsureResponse,
  EnsureResponseSchema,
  type NodeRecord,
  type Touched,
  type WatchEndpointsResponse,
  WatchEndpointsResponseSchema,
} from "@warren/proto/scheduler";
import type { CoreConfig } from "@warren/scheduler/core/config";
import type { Core, CoreOptions } from "@warren/scheduler/core/core";
import type { Answer, Effect, EndpointMessage } from "@warren/scheduler/core/effects";
import type { Input, JoinInfo, SleepOutcome } from "@warren/scheduler/core/inputs";
import type { Moment, ReachedLimit } from "@warren/scheduler/core/model";
import type { Refusal } from "@warren/scheduler/core/refusal";
import { Actor } from "./actor.ts";
import type { Site } from "./site.ts";
import { Writer } from "./writer.ts";

export type MakeCore = (options: CoreOptions) => Core;

/** An answer over RPC, or the code of its refusal. */
export type Rpc<T> = { readonly ok: T } | { readonly failed: "precondition" | "refused" | "unavailable" };

export interface ReportMessage {
  readonly node: string;
  readonly incarnation: string;
  readonly stream: string;
  readonly fencedEpoch: bigint;
  readonly records: readonly NodeRecord[];
  readonly pressure: NodePressure;
  readonly inventory?: readonly Instance[];
}

type Outcome = { readonly answer: Answer } | { readonly refusal: Refusal };

interface Call {
  readonly input: Input;
  readonly done: (outcome: Outcome) => void;
}

/** A watch of endpoints: messages arrive in order, or it breaks. */
export interface Watch {
  readonly gateway: string;
  /** Takes a message on its way. */
  readonly send: (message: WatchEndpointsResponse) => void;
  open: boolean;
}

const tickMs = 50;
const heartbeatMs = 2_000;
/** Beyond the grace of a stop: killing and verifying. */
const stopSlackMs = 20_000;

/** Deadlines of a freeze and of a thaw. */
const sleepMs = 60_000;
const thawMs = 5_000;
const unheard: SleepOutcome = { kind: "unknown", message: "no answer" };

export class Scheduler extends Actor {
  readonly core: Core;
  readonly since: number;
  /** Told that it was replaced, or found out. */
  deposed = false;
  /** Gateways that ever watched it: whether they do now, and since when. */
  readonly gateways = new Map<string, { connected: boolean; since: number }>();
  readonly #writer: Writer;
  readonly #calls = new Map<string, Call>();
  readonly #watches = new Set<Watch>();
  #lastCall = 0;

  constructor(
    private readonly site: Site,
    readonly epoch: bigint,
    makeCore: MakeCore,
    readonly config: CoreConfig,
  ) {
    super(`s${epoch}`, site.agenda);
    this.since = site.agenda.now;
    const chance = site.rng.fork(`core${epoch}`);
    this.core = makeCore({
      config,
      epoch,
      since: this.at().mono,
      random: () => chance.next(),
      newId: () => site.newId(),
    });
    this.#writer = new Writer(this, epoch, site.store, () => this.depose("the store has another epoch"));
    const loaded = site.store.load();
    this.feed({ type: "load", loaded: { ...loaded, limits: shifted(loaded.limits, site.wallOffset) } });
    this.every(tickMs, () => this.feed({ type: "tick" }));
    this.every(heartbeatMs, () => {
      for (const watch of this.#watches) watch.send(this.#message(EndpointUpdate.HEARTBEAT, 0));
    });
  }

  /** It commands no more; its callers' connections break. */
  depose(why: string): void {
    if (this.deposed) return;
    this.deposed = true;
    this.site.trace(() => `${this.name} stops: ${why}`);
    this.site.kill(this);
  }

  at(): Moment {
    const { agenda, wallOffset } = this.site;
    return { mono: agenda.now + Number(this.epoch) * 1e6, wall: agenda.now + wallOffset };
  }

  /** Its monotonic clock at a moment of the simulation. */
  mono(at: number): number {
    return at + Number(this.epoch) * 1e6;
  }

  feed(input: Input): void {
    const { site } = this;
    site.stepped(this, input);
    const effects = this.core.step(input, this.at());
    for (const effect of effects) this.#perform(effect);
  }

  /** Feeds an input that is answered once. */
  ask(make: (call: string) => Input, deadlineMs: number, done: (outcome: Outcome) => void): string {
    const call = `${this.name}c${++this.#lastCall}`;
    const input = make(call);
    this.#calls.set(call, { input, done });
    this.site.truth.asked(this, call, input, deadlineMs);
    this.feed(input);
    return call;
  }

  /** The caller of an Ensure goes away. */
  cancel(call: string, tenant: string): void {
    if (!this.#calls.has(call)) return;
    this.feed({ type: "cancel", call, tenant });
    this.site.truth.cancelled(call);
    this.#calls.delete(call);
  }

  // NodeService

  join(info: JoinInfo, highestEpoch: bigint, reply: (answer: Rpc<bigint>) => void): void {
    if (highestEpoch > this.epoch) {
      reply({ failed: "precondition" });
      return;
    }
    this.ask(
      (call) => ({ type: "join", call, info }),
      0,
      (outcome) => reply("answer" in outcome ? { ok: this.epoch } : { failed: "precondition" }),
    );
  }

  report(message: ReportMessage, reply: (answer: Rpc<{ ackedSeq: bigint; epoch: bigint }>) => void): void {
    const { node, incarnation, fencedEpoch, pressure, inventory, records, stream } = message;
    const transitions = records.flatMap(({ what }) => (what.case === "transition" ? [what.value] : []));
    const usages = records.flatMap(({ what }) => (what.case === "usage" ? [what.value] : []));
    const { epoch } = this;
    this.ask(
      (call) => ({
        type: "report",
        call,
        node,
        incarnation,
        fencedEpoch,
        transitions,
        usages,
        pressure,
        inventory,
      }),
      0,
      (outcome) => {
        if ("refusal" in outcome) {
          reply({ failed: "precondition" });
          return;
        }
        this.site.truth.heard(this, node);
        const last = records.at(-1);
        if (!last) {
          reply({ ok: { ackedSeq: 0n, epoch } });
          return;
        }
        const entries = records.map((record) => ({ id: `${node}:${stream}:${record.seq}`, record }));
        this.site.store.journalAppend(
          entries,
          this.whileAlive((taken: boolean) => reply({ ok: { ackedSeq: taken ? last.seq : 0n, epoch } })),
        );
      },
    );
  }

  // SchedulerService, as far as gateways need it

  ensure(tenant: string, deadlineMs: number, reply: (answer: Rpc<EnsureResponse>) => void): string {
    const deadline = this.at().mono + deadlineMs;
    return this.ask(
      (call) => ({ type: "ensure", call, tenant, deadline }),
      deadlineMs,
      (outcome) => {
        if ("refusal" in outcome || outcome.answer.kind !== "ensured") {
          reply({ failed: "refused" });
          return;
        }
        const instance = this.core.state.instances.get(outcome.answer.instance);
        if (!instance) {
          reply({ failed: "refused" });
          return;
        }
        reply({
          ok: create(EnsureResponseSchema, {
            endpoint: instance.endpoint,
            instance: instance.ref,
            cold: outcome.answer.cold,
            version: { epoch: this.epoch, n: BigInt(instance.version) },
          }),
        });
      },
    );
  }

  touch(source: string, touched: readonly Touched[]): void {
    this.feed({
      type: "touch",
      source,
      entries: touched.map((one) => ({
        instance: one.instance,
        idleMs: fromDuration(one.idleFor, 0),
        inFlight: one.inFlight,
        seen: one.seen?.epoch === this.epoch ? Number(one.seen.n) : 0,
        sealed: one.sealed,
      })),
    });
  }

  open(watch: Watch): void {
    if (this.#watches.has(watch)) return; // a doubled message is no second stream
    this.#watches.add(watch);
    const known = this.gateways.get(watch.gateway);
    if (!known?.connected) this.gateways.set(watch.gateway, { connected: true, since: this.agenda.now });
    this.feed({
      type: "watcher-up",
      watcher: watch.gateway,
      gateway: { publicUrl: "http://{tenant}.localhost" },
    });
    watch.send(this.#message(EndpointUpdate.HEARTBEAT, 0));
  }

  close(watch: Watch): void {
    if (!this.#watches.delete(watch)) return;
    if (![...this.#watches].some(({ gateway }) => gateway === watch.gateway)) {
      this.gateways.set(watch.gateway, { connected: false, since: this.agenda.now });
    }
    this.feed({ type: "gateway-down", gateway: watch.gateway });
  }

  /** Everything it wants persisted is. */
  get isPersisted(): boolean {
    return this.#writer.isIdle;
  }

  /** Whether this scheduler had to reckon with what a gateway has in flight (rule 3). */
  reckonsWith(gateway: string): boolean {
    const known = this.gateways.get(gateway);
    const { now } = this.agenda;
    if (!known) return now - this.since < this.config.gatewayReturnMs - 1;
    return known.connected || now - known.since < this.config.gatewayGoneMs - 1;
  }

  #perform(effect: Effect): void {
    const { site } = this;
    // That a report was taken says nothing to whoever reads a history.
    const isPlain = effect.type === "answer" && effect.answer.kind === "done";
    if (!isPlain) site.trace(() => `  ${this.name} → ${describeEffect(effect)}`);
    switch (effect.type) {
      case "persist": {
        const { durable, failed } = effect;
        const write =
          effect.write.kind === "limits"
            ? { ...effect.write, reached: shifted(effect.write.reached, -site.wallOffset) }
            : effect.write;
        if (write.kind === "placement-gone") site.truth.freed(this, write.id);
        this.#writer.append(write, failed === undefined, (taken) => {
          const next = taken ? durable : failed;
          if (next && !this.deposed) this.feed(next);
        });
        return;
      }
      case "start":
        this.#start(effect);
        return;
      case "stop":
        this.#stop(effect);
        return;
      case "answer":
        this.#settle(effect.call, { answer: effect.answer });
        return;
      case "refuse":
        this.#settle(effect.call, { refusal: effect.refusal });
        return;
      case "endpoints": {
        const message = this.#encode(effect.message);
        for (const id of message.withdrawn) site.truth.leaving(id);
        if (effect.to === undefined)
          for (const { instance } of message.endpoints) if (instance) site.truth.staying(instance.id);
        let newest: Watch | undefined;
        for (const watch of this.#watches) {
          if (effect.to === undefined) watch.send(message);
          else if (watch.gateway === effect.to) newest = watch;
        }
        newest?.send(message);
        return;
      }
      case "event":
        if (effect.payload.case === "node" && effect.payload.value.change === NodeChange.LOST) {
          site.truth.lost(this, effect.payload.value.node);
        }
        return;
      case "freeze":
        this.#freeze(effect);
        return;
      case "thaw":
        this.#thaw(effect);
        return;
      case "backup-volume":
      case "remove-volume":
        return; // no tenant here has volumes
      default:
        effect satisfies never;
    }
  }

  #settle(call: string, outcome: Outcome): void {
    this.site.truth.answered(this, call, "answer" in outcome ? outcome.answer.kind : outcome.refusal.kind);
    const known = this.#calls.get(call);
    this.#calls.delete(call);
    known?.done(outcome);
  }

  #start(effect: Extract<Effect, { type: "start" }>): void {
    const { site, epoch } = this;
    const { ref, spec, incarnation, timeoutMs } = effect;
    site.truth.commanded(this, ref);
    const agent = site.agentAt(effect.agentUrl);
    site.net.call<Rpc<Instance> & { elsewhere?: boolean }>(
      this,
      agent,
      timeoutMs,
      (reply) => agent.startInstance({ epoch, incarnation, ref, spec }, reply),
      (answer) => {
        if (!answer) this.feed(started(ref.id, { kind: "unknown", message: "lost" }));
        else if ("ok" in answer) this.feed(started(ref.id, { kind: "answered", instance: answer.ok }));
        else {
          const elsewhere = answer.elsewhere ?? false;
          this.feed(started(ref.id, { kind: "refused", message: "refused", elsewhere }));
        }
      },
    );
  }

  #stop(effect: Extract<Effect, { type: "stop" }>): void {
    const { site, epoch } = this;
    const { ref, reason, graceMs, ifWakes } = effect;
    site.truth.leaving(ref.id);
    const reckoned = isQuiet(reason)
      ? site.truth.putAwayDecided(this, ref, ExitReason[reason])
      : new Set<string>();
    const agent = site.agentAt(effect.agentUrl);
    site.net.call<Rpc<{ gone?: Instance }> & { thawed?: bigint }>(
      this,
      agent,
      graceMs + stopSlackMs,
      (reply) =>
        agent.stopInstance(
          { epoch, id: ref.id, reason, graceMs, ifWakes, by: { reckoned, scheduler: this } },
          reply,
        ),
      (answer) => {
        if (answer && "ok" in answer) {
          this.feed({ type: "stopped", instance: ref.id, gone: answer.ok.gone });
        } else {
          const error = answer ? answer.failed : "no answer";
          this.feed({ type: "stopped", instance: ref.id, error, thawed: answer?.thawed });
        }
      },
    );
  }

  #freeze({ ref, ifWakes, pageOut, command, agentUrl }: Extract<Effect, { type: "freeze" }>): void {
    const { site, epoch } = this;
    const reckoned = pageOut ? new Set<string>() : site.truth.putAwayDecided(this, ref, `freeze ${command}`);
    const agent = site.agentAt(agentUrl);
    const request = { epoch, id: ref.id, ifWakes, pageOut, by: { reckoned, scheduler: this } };
    site.net.call<SleepOutcome>(
      this,
      agent,
      sleepMs,
      (reply) => agent.freezeInstance(request, reply),
      (outcome) => this.feed({ type: "slept", instance: ref.id, command, outcome: outcome ?? unheard }),
    );
  }

  #thaw({ ref, command, agentUrl }: Extract<Effect, { type: "thaw" }>): void {
    const agent = this.site.agentAt(agentUrl);
    this.site.net.call<SleepOutcome>(
      this,
      agent,
      thawMs,
      (reply) => reply(agent.thawInstance(ref.id)),
      (outcome) => this.feed({ type: "slept", instance: ref.id, command, outcome: outcome ?? unheard }),
    );
  }

  #message(update: EndpointUpdate, n: number): WatchEndpointsResponse {
    const version = create(EndpointVersionSchema, { epoch: this.epoch, n: BigInt(n) });
    return create(WatchEndpointsResponseSchema, { update, version });
  }

  #encode(message: EndpointMessage): WatchEndpointsResponse {
    const response = this.#message(
      message.update === "complete" ? EndpointUpdate.COMPLETE : EndpointUpdate.INCREMENTAL,
      message.n,
    );
    response.endpoints = [...message.endpoints];
    if (message.update === "complete") {
      response.node = message.node;
      response.agentUrl = message.agentUrl;
    } else response.withdrawn = [...message.withdrawn];
    return response;
  }
}

/** Ends that must not touch what is in use. */
function isQuiet(reason: ExitReason): boolean {
  return reason === ExitReason.IDLE_KILLED || reason === ExitReason.LRU_EVICTED;
}

function started(instance: string, outcome: Extract<Input, { type: "started" }>["outcome"]): Input {
  return { type: "started", instance, outcome };
}

function describeEffect(effect: Effect): string {
  switch (effect.type) {
    case "persist":
      return `persist ${effect.write.kind} ${"ref" in effect.write ? `${effect.write.ref.id} of ${effect.write.ref.tenant} on ${effect.write.ref.node}` : "id" in effect.write ? effect.write.id : ""}`;
    case "start":
    case "stop":
      return `${effect.type} ${effect.ref.id} of ${effect.ref.tenant} on ${effect.ref.node}${effect.type === "stop" ? ` (reason ${effect.reason})` : ""}`;
    case "answer":
      return `answer ${effect.call} ${effect.answer.kind}`;
    case "refuse":
      return `refuse ${effect.call} ${effect.refusal.kind}`;
    case "endpoints": {
      const { message } = effect;
      const named = message.endpoints.map(({ instance, mode }) => `${instance?.id}:${mode}`).join(" ");
      const withdrawn = message.update === "incremental" ? message.withdrawn.join(" ") : `of ${message.node}`;
      return `endpoints ${message.update} n=${message.n} [${named}] withdrawn [${withdrawn}]`;
    }
    case "freeze":
    case "thaw":
      return `${effect.type} ${effect.ref.id} of ${effect.ref.tenant} (command ${effect.command})`;
    case "backup-volume":
    case "remove-volume":
      return `${effect.type} ${effect.name} of ${effect.tenant}`;
    case "event":
      return `event ${effect.payload.case}`;
  }
}

/**
 * A period is over when the wall clock says so, for whoever leads; here that clock is set at will, and what is asked is to
 * converge all the same. So the store has its end in the simulation's time.
 */
const shifted = (limits: readonly ReachedLimit[], byMs: number): ReachedLimit[] =>
  limits.map((limit) => ({ ...limit, until: limit.until + byMs }));
