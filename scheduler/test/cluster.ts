/**
 * The core with a model of everything around it, in virtual time: a store that takes a while, nodes that start and stop
 * instances as told, gateways that seal when asked. Everything random comes from a seed. After each step it checks the
 * rules that must always hold.
 */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { seeded } from "@warren/common/testing/seeded";
import { toDuration, toTimestamp } from "@warren/common/time";
import {
  Availability,
  BackupSchema,
  EndpointSchema,
  ExitReason,
  ExitSchema,
  type Instance,
  InstanceMode,
  type InstanceRef,
  InstanceSchema,
  InstanceState,
  type Isolation,
  NodeCapacitySchema,
  type NodeHost,
  NodePressureSchema,
  type TenantSpec,
  TenantSpecSchema,
  TransitionSchema,
  type UsageReport,
} from "@warren/proto/common";
import { type CoreConfig, defaultCoreConfig } from "../src/core/config.ts";
import { Core } from "../src/core/core.ts";
import type { Answer, Effect, StartVolume, Write } from "../src/core/effects.ts";
import type { BackupOutcome, Input, Loaded, SleepOutcome } from "../src/core/inputs.ts";
import type { Moment } from "../src/core/model.ts";
import type { Refusal } from "../src/core/refusal.ts";

/** How a tenant's start goes. */
export type Behaviour = "ready" | "crashes" | "hangs" | "refused";

interface Running {
  readonly ref: InstanceRef;
  state: InstanceState;
  port: number;
  mode: InstanceMode;
  wakes: bigint;
}

export interface ModelNode {
  readonly name: string;
  incarnation: number;
  bootId: string;
  /** Reports and takes commands. */
  reachable: boolean;
  /** Its agent runs. */
  alive: boolean;
  fencedEpoch: bigint;
  isolation: readonly Isolation[];
  host?: NodeHost;
  readonly instances: Map<string, Running>;
  /** What copies of volumes hold: the ids of the instances that had them, one after the other. */
  readonly volumes?: Map<string, string[]>;
}

export interface ModelGateway {
  readonly id: string;
  connected: boolean;
  /** Requests in flight by instance. */
  readonly inFlight: Map<string, number>;
}

type Outcome = { readonly answer: Answer } | { readonly refusal: Refusal };

export class Cluster {
  readonly config: CoreConfig;
  readonly random: () => number;
  core: Core;
  now = 1_000;
  epoch = 1n;
  storeUp = true;
  /** Why backups fail, while they do. */
  backupError?: string;
  /** What each backup holds, by its id. */
  readonly backups = new Map<string, string[]>();
  readonly nodes = new Map<string, ModelNode>();
  readonly gateways = new Map<string, ModelGateway>();
  readonly behaviour = new Map<string, Behaviour>();
  /** How the next start of a tenant goes, where it changes from one to the other. */
  onStart: (tenant: string) => Behaviour = (tenant) => this.behaviour.get(tenant) ?? "ready";
  /** What an instance holds of its node's memory, in bytes. */
  memoryOf: (tenant: string) => number = () => 10 * 1024 * 1024;
  readonly outcomes = new Map<string, Outcome>();
  readonly events: Extract<Effect, { type: "event" }>[] = [];
  /** All that was persisted, by key. */
  readonly log = new Map<string, Write>();
  /** Instances that were given up with their node: while they live, rules 1 and 2 do not count them. */
  readonly exempt = new Set<string>();
  /** What an instance was placed to replace: the one overlap that rule 2 allows. */
  readonly replaces = new Map<string, string>();
  /** Starts commanded, by tenant. */
  readonly starts = new Map<string, number>();
  #agenda: { at: number; order: number; run: () => void }[] = [];
  #order = 0;
  #calls = 0;
  #ids = 0;

  constructor(options: { seed?: number; nodes?: number; config?: Partial<CoreConfig> } = {}) {
    this.random = seeded(options.seed ?? 1);
    this.config = { ...defaultCoreConfig, gatewayReturnMs: 0, firstPeriodMs: 0, ...options.config };
    this.core = this.#newCore();
    for (let i = 1; i <= (options.nodes ?? 1); i++) this.addNode(`n${i}`);
    this.#every(50, () => this.feed({ type: "tick" }));
  }

  #newCore(): Core {
    return new Core({
      config: this.config,
      epoch: this.epoch,
      since: this.now,
      random: this.random,
      newId: () => `01J${String(++this.#ids).padStart(23, "0")}`,
    });
  }

  // What a user does.

  apply(key: string, spec: Partial<Omit<TenantSpec, "$typeName" | "$unknown">> = {}): string {
    const full = create(TenantSpecSchema, { key, source: { case: "directory", value: "/app" }, ...spec });
    const made = this.ask((call) => ({ type: "apply", call, spec: full }));
    this.run(20);
    return made;
  }

  /** Answers the call's name; its outcome comes with time. */
  ensure(tenant: string, withinMs = 10_000): string {
    return this.ask((call) => ({ type: "ensure", call, tenant, deadline: this.now + withinMs }));
  }

  operation(kind: "stop" | "restart" | "delete", tenant: string, withinMs = 60_000): string {
    return this.ask((call) => ({ type: "operation", call, kind, tenant, deadline: this.now + withinMs }));
  }

  ask(make: (call: string) => Input): string {
    const call = `call${++this.#calls}`;
    this.feed(make(call));
    return call;
  }

  granted(call: string): Answer {
    const outcome = this.outcomes.get(call);
    if (!outcome || !("answer" in outcome)) throw new Error(`${call}: ${JSON.stringify(outcome)}`);
    return outcome.answer;
  }

  refused(call: string): Refusal {
    const outcome = this.outcomes.get(call);
    if (!outcome || !("refusal" in outcome))
      throw new Error(`${call} was not refused: ${JSON.stringify(outcome)}`);
    return outcome.refusal;
  }

  // What goes wrong.

  /** kill -9 of the scheduler, and a new one on the same log. */
  restartScheduler(): void {
    this.epoch++;
    const loaded = this.#load();
    this.core = this.#newCore();
    this.outcomes.clear(); // the callers' connections broke with it
    this.feed({ type: "load", loaded });
    for (const gateway of this.gateways.values()) if (gateway.connected) this.#watch(gateway);
    for (const node of this.nodes.values()) if (node.alive && node.reachable) this.join(node);
  }

  addNode(name: string, more: Partial<Pick<ModelNode, "isolation" | "host">> = {}): ModelNode {
    const node: ModelNode = {
      isolation: [],
      ...more,
      name,
      incarnation: 1,
      bootId: "boot1",
      reachable: true,
      alive: true,
      fencedEpoch: 0n,
      instances: new Map(),
    };
    this.nodes.set(name, node);
    this.join(node);
    this.#every(500, () => {
      if (node.alive && node.reachable) this.report(node);
    });
    return node;
  }

  addGateway(id: string): ModelGateway {
    const gateway: ModelGateway = { id, connected: true, inFlight: new Map() };
    this.gateways.set(id, gateway);
    this.#watch(gateway);
    return gateway;
  }

  #watch(gateway: ModelGateway): void {
    this.feed({
      type: "watcher-up",
      watcher: gateway.id,
      gateway: { publicUrl: "http://{tenant}.localhost" },
    });
    for (const [instance, inFlight] of gateway.inFlight) this.touch(gateway, instance, inFlight);
  }

  disconnect(gateway: ModelGateway): void {
    gateway.connected = false;
    this.feed({ type: "gateway-down", gateway: gateway.id });
  }

  touch(gateway: ModelGateway, instance: string, inFlight: number, idleMs = 0): void {
    gateway.inFlight.set(instance, inFlight);
    this.feed({
      type: "touch",
      source: gateway.id,
      entries: [{ instance, idleMs, inFlight, seen: 0, sealed: false }],
    });
  }

  join(node: ModelNode, usages: readonly UsageReport[] = []): void {
    const call = this.ask((call) => ({
      type: "join",
      call,
      info: {
        node: node.name,
        agentUrl: `https://${node.name}`,
        bootId: node.bootId,
        incarnation: `${node.name}-${node.incarnation}`,
        version: "1",
        capacity: create(NodeCapacitySchema, { memoryBytes: 8n << 30n, cpuMillis: 4000 }),
        isolation: node.isolation,
        host: node.host,
        labels: {},
        allowDirectories: true,
      },
    }));
    const outcome = this.outcomes.get(call);
    if (!outcome || !("answer" in outcome)) return;
    node.fencedEpoch = this.epoch;
    this.report(node, true, usages);
  }

  report(node: ModelNode, withInventory = false, usages: readonly UsageReport[] = []): void {
    const instances = [...node.instances.values()];
    const call = this.ask((call) => ({
      type: "report",
      call,
      node: node.name,
      incarnation: `${node.name}-${node.incarnation}`,
      fencedEpoch: node.fencedEpoch,
      transitions: [],
      usages,
      pressure: create(NodePressureSchema, {
        tenantMemoryBytes: BigInt(instances.reduce((sum, { ref }) => sum + this.memoryOf(ref.tenant), 0)),
        liveInstances: instances.length,
      }),
      inventory: withInventory ? instances.map((running) => this.#view(running)) : undefined,
    }));
    const outcome = this.outcomes.get(call);
    if (outcome && "refusal" in outcome && !withInventory) this.join(node);
  }

  /** kill -9 of an agent; its instances live on. */
  killAgent(node: ModelNode): void {
    node.alive = false;
  }

  startAgent(node: ModelNode): void {
    node.alive = true;
    node.incarnation++;
    // A start under way died with its agent: the new one finds it not ready, and ends it.
    for (const [id, running] of node.instances)
      if (running.state < InstanceState.READY) node.instances.delete(id);
    this.join(node);
  }

  /** All ready instances of a node change their mode, whoever wanted it. */
  flip(node: ModelNode, toMode: InstanceMode): void {
    if (!node.alive || !node.reachable) return;
    for (const running of node.instances.values()) {
      if (running.state !== InstanceState.READY) continue;
      if (toMode === InstanceMode.ACTIVE && running.mode !== toMode) running.wakes++;
      running.mode = toMode;
      const { ref, state, port, wakes } = running;
      this.transition(ref, { to: state, toMode, wakes, endpoint: { host: "127.0.0.1", port } });
    }
  }

  /** A process dies by itself. */
  crash(id: string): void {
    for (const node of this.nodes.values()) {
      const running = node.instances.get(id);
      if (!running) continue;
      node.instances.delete(id);
      if (node.alive && node.reachable) {
        this.transition(running.ref, { to: InstanceState.EXITED, exit: { reason: ExitReason.CRASHED } });
      }
    }
  }

  /** Processes that exist, wherever. */
  live(): InstanceRef[] {
    return [...this.nodes.values()].flatMap((node) => [...node.instances.values()].map(({ ref }) => ref));
  }

  // Virtual time.

  at(): Moment {
    return { mono: this.now, wall: 1_700_000_000_000 + this.now };
  }

  /** Lets `ms` pass. */
  run(ms: number): void {
    const end = this.now + ms;
    for (;;) {
      const next = this.#agenda[0];
      if (!next || next.at > end) break;
      this.#agenda.shift();
      this.now = Math.max(this.now, next.at);
      next.run();
    }
    this.now = end;
  }

  feed(input: Input): void {
    for (const effect of this.core.step(input, this.at())) this.#perform(effect);
    this.check();
  }

  /** The rules of DESIGN section 5 that can be seen from here. */
  check(): void {
    const { state, config } = this.core;
    let live = 0;
    for (const instance of state.instances.values()) {
      if (instance.lost) this.exempt.add(instance.ref.id);
      else live++;
    }
    if (live !== state.live)
      throw new Error(`the count of live instances is ${state.live}, there are ${live}`);
    const processes = this.live().filter(({ id }) => !this.exempt.has(id)).length;
    if (processes > config.maxConcurrent)
      throw new Error(`rule 1: ${processes} live, ${config.maxConcurrent} allowed`);
    const owner = new Map<string, InstanceRef>();
    for (const ref of this.live()) {
      const { phase } = state.instances.get(ref.id) ?? {};
      if (this.exempt.has(ref.id) || phase?.kind === "stopping" || phase?.kind === "draining") continue;
      const slot = `${ref.tenant}/${ref.slot}`;
      const other = owner.get(slot);
      const replacing = (a: string, b: string) => this.replaces.get(a) === b;
      if (other && !replacing(ref.id, other.id) && !replacing(other.id, ref.id))
        throw new Error(`rule 2: ${other.id} and ${ref.id} both live for ${slot}`);
      owner.set(slot, ref);
    }
    this.#checkBooks();
    let waiting = 0;
    for (const waiters of state.waiters.values()) waiting += waiters.length;
    if (waiting !== state.waiting)
      throw new Error(`the count of waiting calls is ${state.waiting}, there are ${waiting}`);
  }

  /** The sums that the core keeps are what it would count. */
  #checkBooks(): void {
    const { state } = this.core;
    for (const node of state.nodes.values()) {
      const here = [...state.instances.values()].filter(({ ref }) => ref.node === node.name);
      const placed = here.filter(({ lost }) => !lost);
      const starting = placed.filter(({ phase }) => phase.kind === "persisting" || phase.kind === "starting");
      const memory = placed.reduce((sum, { charge }) => sum + charge.memory.mean, 0);
      const counted = [here.length, placed.length, starting.length, Math.round(memory)];
      const kept = [node.instances.size, node.placed, node.starting, Math.round(node.charged.memory.mean)];
      if (`${counted}` !== `${kept}`) throw new Error(`${node.name} is charged ${kept}, it holds ${counted}`);
    }
  }

  #schedule(ms: number, run: () => void): void {
    const entry = { at: this.now + ms, order: ++this.#order, run };
    let i = this.#agenda.length;
    while (i > 0 && this.#agenda[i - 1]!.at > entry.at) i--;
    this.#agenda.splice(i, 0, entry);
  }

  #every(ms: number, run: () => void): void {
    this.#schedule(ms, () => {
      run();
      this.#every(ms, run);
    });
  }

  #view({ ref, state, port, mode, wakes }: Running): Instance {
    return create(InstanceSchema, {
      ref,
      state,
      mode: state === InstanceState.READY ? mode : 0,
      wakes,
      endpoint:
        state >= InstanceState.READY ? create(EndpointSchema, { host: "127.0.0.1", port }) : undefined,
      startDuration: toDuration(20),
    });
  }

  #exited(ref: InstanceRef, reason: ExitReason): Instance {
    return create(InstanceSchema, { ref, state: InstanceState.EXITED, exit: create(ExitSchema, { reason }) });
  }

  /** The node reports a change of one of its instances, from READY unless told otherwise. */
  transition(ref: InstanceRef, change: Omit<MessageInitShape<typeof TransitionSchema>, "$typeName">): void {
    const node = this.nodes.get(ref.node)!;
    this.ask((call) => ({
      type: "report",
      call,
      node: node.name,
      incarnation: `${node.name}-${node.incarnation}`,
      fencedEpoch: node.fencedEpoch,
      transitions: [create(TransitionSchema, { instance: ref, from: InstanceState.READY, ...change })],
      usages: [],
    }));
  }

  #perform(effect: Effect): void {
    switch (effect.type) {
      case "persist": {
        const { core } = this;
        this.#schedule(1, () => {
          if (this.core !== core) return; // its epoch is over: the log does not take it
          if (!this.storeUp) {
            if (effect.failed) this.feed(effect.failed);
            return;
          }
          this.#record(effect.write);
          if (effect.durable) this.feed(effect.durable);
        });
        return;
      }
      case "start":
        this.#start(effect);
        return;
      case "stop":
        this.#stop(effect);
        return;
      case "freeze":
      case "thaw":
        this.#sleep(effect);
        return;
      case "backup-volume":
        this.#backUp(effect);
        return;
      case "remove-volume": {
        const { type: _, agentUrl: __, ...removed } = effect;
        for (const { volumes } of this.nodes.values()) volumes?.delete(effect.id);
        this.#schedule(10, () => this.feed({ type: "volume-removed", ...removed }));
        return;
      }
      case "answer":
        this.#settle(effect.call, { answer: effect.answer });
        return;
      case "refuse":
        this.#settle(effect.call, { refusal: effect.refusal });
        return;
      case "endpoints":
        this.#tell(effect);
        return;
      case "event":
        this.events.push(effect);
    }
  }

  #settle(call: string, outcome: Outcome): void {
    if (this.outcomes.has(call)) throw new Error(`rule 4: ${call} was answered twice`);
    this.outcomes.set(call, outcome);
  }

  #backUp({ tenant, name, id, backup, fingerprint }: Extract<Effect, { type: "backup-volume" }>): void {
    const held = [...this.nodes.values()].map(({ volumes }) => volumes?.get(id)).find((one) => one);
    const asOf = toTimestamp(this.at().wall);
    const content = held?.join(" ") ?? "";
    const outcome: BackupOutcome = this.backupError
      ? { kind: "failed", message: this.backupError }
      : content === fingerprint
        ? { kind: "unchanged", asOf }
        : {
            kind: "made",
            backup: create(BackupSchema, { id: backup, asOf, fingerprint: content, bytes: 1n }),
          };
    if (held) this.backups.set(backup, [...held]);
    this.#schedule(30, () => this.feed({ type: "backed-up", tenant, name, id, outcome }));
  }

  /** As the shell and the agent do: what is to be brought back first, and never an empty one where there was one. */
  #mount(node: ModelNode, ref: InstanceRef, { id, mustExist, restore }: StartVolume): void {
    const volumes = node.volumes ?? new Map<string, string[]>();
    Object.assign(node, { volumes });
    if (restore && !volumes.has(id)) volumes.set(id, [...this.backups.get(restore.id)!]);
    if (mustExist && !volumes.has(id)) throw new Error(`W2: ${id} must exist on ${node.name}`);
    volumes.set(id, [...(volumes.get(id) ?? []), ref.id]);
  }

  #start({ ref, incarnation, volumes }: Extract<Effect, { type: "start" }>): void {
    const { core } = this;
    const node = this.nodes.get(ref.node)!;
    const epoch = this.epoch;
    const { replaces } = core.state.instances.get(ref.id) ?? {};
    if (replaces) this.replaces.set(ref.id, replaces);
    this.starts.set(ref.tenant, (this.starts.get(ref.tenant) ?? 0) + 1);
    const answer = (input: Input): void => {
      if (this.core === core) this.feed(input);
    };
    if (!this.log.has(`placement.${ref.id}`))
      throw new Error(`${ref.id} was commanded before it was persisted`);
    const behaviour = this.onStart(ref.tenant);
    if (behaviour === "refused") {
      this.#schedule(1, () =>
        answer({
          type: "started",
          instance: ref.id,
          outcome: { kind: "refused", message: "no such directory", elsewhere: false },
        }),
      );
      return;
    }
    this.#schedule(1 + this.random() * 3, () => {
      const right = node.alive && node.reachable && node.fencedEpoch === epoch;
      if (!right || `${node.name}-${node.incarnation}` !== incarnation) {
        answer({ type: "started", instance: ref.id, outcome: { kind: "unknown", message: "lost" } });
        return;
      }
      const running: Running = {
        ref,
        state: InstanceState.STARTING,
        port: 1000 + this.#order,
        mode: InstanceMode.ACTIVE,
        wakes: 0n,
      };
      node.instances.set(ref.id, running);
      for (const volume of volumes) this.#mount(node, ref, volume);
      this.check();
      if (behaviour === "hangs") return;
      this.#schedule(5 + this.random() * 50, () => {
        if (node.instances.get(ref.id) !== running || running.state !== InstanceState.STARTING) return;
        if (behaviour === "crashes") {
          node.instances.delete(ref.id);
          answer({
            type: "started",
            instance: ref.id,
            outcome: { kind: "answered", instance: this.#exited(ref, ExitReason.CRASHED) },
          });
          return;
        }
        running.state = InstanceState.READY;
        answer({
          type: "started",
          instance: ref.id,
          outcome: { kind: "answered", instance: this.#view(running) },
        });
      });
    });
  }

  #sleep(effect: Extract<Effect, { type: "freeze" | "thaw" }>): void {
    const { core } = this;
    const { ref, command } = effect;
    const node = this.nodes.get(ref.node)!;
    const answer = (outcome: SleepOutcome): void => {
      if (this.core === core) this.feed({ type: "slept", instance: ref.id, command, outcome });
    };
    this.#schedule(1 + this.random() * 3, () => {
      const running = node.instances.get(ref.id);
      if (!node.alive || !node.reachable) return answer({ kind: "failed", message: "not reachable" });
      if (running?.state !== InstanceState.READY) return answer({ kind: "gone" });
      if (effect.type === "thaw") {
        running.mode = InstanceMode.ACTIVE;
        running.wakes++;
        return answer({ kind: "done", wakes: running.wakes });
      }
      if (running.wakes !== effect.ifWakes) return answer({ kind: "thawed", wakes: running.wakes });
      for (const gateway of this.gateways.values()) {
        if (gateway.connected && (gateway.inFlight.get(ref.id) ?? 0) > 0)
          throw new Error(`rule 3: ${ref.id} is frozen with a request in flight`);
      }
      running.mode = effect.pageOut ? InstanceMode.PAGED_OUT : InstanceMode.FROZEN;
      answer({ kind: "done", wakes: running.wakes });
    });
  }

  #stop({ ref, reason, ifWakes }: Extract<Effect, { type: "stop" }>): void {
    const { core } = this;
    const node = this.nodes.get(ref.node)!;
    const answer = (input: Input): void => {
      if (this.core === core) this.feed(input);
    };
    this.#schedule(1 + this.random() * 3, () => {
      if (!node.alive || !node.reachable) {
        answer({ type: "stopped", instance: ref.id, error: "not reachable" });
        return;
      }
      const running = node.instances.get(ref.id);
      for (const gateway of this.gateways.values()) {
        const gentle = reason === ExitReason.IDLE_KILLED || reason === ExitReason.LRU_EVICTED;
        if (gentle && gateway.connected && (gateway.inFlight.get(ref.id) ?? 0) > 0) {
          throw new Error(`rule 3: ${ref.id} is stopped (${ExitReason[reason]}) with a request in flight`);
        }
      }
      if (running && ifWakes !== undefined && ifWakes !== running.wakes) {
        answer({ type: "stopped", instance: ref.id, error: "thawed since", thawed: running.wakes });
        return;
      }
      if (running) running.state = InstanceState.STOPPING;
      this.#schedule(2 + this.random() * 20, () => {
        node.instances.delete(ref.id);
        answer({ type: "stopped", instance: ref.id, gone: this.#exited(ref, reason) });
      });
    });
  }

  /** Gateways that have nothing in flight seal what is quiescing or withdrawn. */
  #tell({ message, to }: Extract<Effect, { type: "endpoints" }>): void {
    const asked = [
      ...message.endpoints.filter(({ mode }) => mode === 2).map(({ instance }) => instance!.id),
      ...("withdrawn" in message ? message.withdrawn : []),
    ];
    for (const gateway of this.gateways.values()) {
      if (!gateway.connected || (to !== undefined && to !== gateway.id)) continue;
      for (const instance of asked) {
        const { n } = message;
        this.#schedule(1, () => {
          const inFlight = gateway.inFlight.get(instance) ?? 0;
          const sealed = inFlight === 0;
          this.feed({
            type: "touch",
            source: gateway.id,
            entries: [{ instance, idleMs: 60_000, inFlight, seen: n, sealed }],
          });
        });
      }
    }
  }

  #record(write: Write): void {
    switch (write.kind) {
      case "tenant":
        this.log.set(`tenant.${write.record.spec.key}`, write);
        return;
      case "tenant-gone":
        this.log.delete(`tenant.${write.key}`);
        return;
      case "limits":
        if (write.reached.length > 0) this.log.set(`limits.${write.tenant}`, write);
        else this.log.delete(`limits.${write.tenant}`);
        return;
      case "node":
        this.log.set(`node.${write.record.name}`, write);
        return;
      case "node-gone":
        this.log.delete(`node.${write.name}`);
        return;
      case "volume":
        this.log.set(`volume.${write.record.tenant}.${write.record.name}`, write);
        return;
      case "volume-gone":
        this.log.delete(`volume.${write.tenant}.${write.name}`);
        return;
      case "placement":
        this.log.set(`placement.${write.ref.id}`, write);
        return;
      case "placement-gone":
        this.log.delete(`placement.${write.id}`);
    }
  }

  #load(): Loaded {
    const writes = [...this.log.values()];
    return {
      tenants: writes.flatMap((write) => (write.kind === "tenant" ? [write.record] : [])),
      limits: writes.flatMap((write) => (write.kind === "limits" ? write.reached : [])),
      nodes: writes.flatMap((write) => (write.kind === "node" ? [write.record] : [])),
      placements: writes.flatMap((write) => (write.kind === "placement" ? [write.ref] : [])),
      releases: [],
      volumes: writes.flatMap((write) => (write.kind === "volume" ? [write.record] : [])),
    };
  }
}

export const atMostOne = { availability: Availability.AT_MOST_ONE };
