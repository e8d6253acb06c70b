/**
 * What this gateway knows of every instance: where it answers, whether requests may go there, what is in flight. Pure:
 * no I/O, no clock of its own.
 *
 * T1  A seal and the beginning of a request exclude each other: both are synchronous, so an instance that was told
 *     sealed has nothing in flight and gets nothing until the scheduler names it again (DESIGN rule 3).
 * T2  An older version never undoes a newer one, whichever way it came (watch, Ensure). A withdrawal is undone only by a
 *     newer word: the instance's node had been given up, and is back.
 * T3  What nobody contradicts is kept: a scheduler that is down or not yet complete takes no route away (rule 7).
 */
import { create } from "@bufbuild/protobuf";
import { toDuration } from "@warren/common/time";
import { InstanceMode, type InstanceRef } from "@warren/proto/common";
import {
  EndpointUpdate,
  EndpointVersionSchema,
  type EnsureResponse,
  type TenantEndpoint,
  type Touched,
  TouchedSchema,
  type WatchEndpointsResponse,
} from "@warren/proto/scheduler";
import type { Route } from "./route.ts";
import { compareVersions, oldest, type Version, versionOf } from "./version.ts";

export interface TableOptions {
  /** Monotonic ms. */
  readonly monotonic: () => number;
  /** How long an instance that refused a connection is passed over. Default 1 s. */
  readonly suspectMs?: number;
  /**
   * How old a seal must be before it may be ignored while the scheduler cannot be reached: whoever asked for it has by
   * then stopped the instance (its socket refuses) or lost the right to (a leader stops commanding after 15 s).
   * Default 20 s.
   */
  readonly sealHoldMs?: number;
  /** Withdrawn instances remembered, against late answers that name them. Default 4096. */
  readonly maxWithdrawn?: number;
  /** An instance sleeps: somebody may want to be ready to wake it, or has to at once if a request is in flight there. */
  readonly onAsleep?: (route: Route) => void;
}

export class EndpointTable {
  readonly #now: () => number;
  readonly #suspectMs: number;
  readonly #sealHoldMs: number;
  readonly #maxWithdrawn: number;
  readonly #onAsleep: (route: Route) => void;
  /** Where nodes' agents answer. */
  readonly #agents = new Map<string, string>();
  readonly #byId = new Map<string, Route>();
  readonly #byTenant = new Map<string, Route[]>();
  /** Withdrawn ones included. */
  readonly #byNode = new Map<string, Set<Route>>();
  /** Withdrawn and confirmed, oldest first. */
  readonly #gone = new Set<string>();
  /** Instances of which the scheduler has not heard the newest. */
  readonly #changed = new Set<string>();
  #epoch = 0n;
  #tick = 0;
  #picks = 0;
  #inFlight = 0;

  constructor(options: TableOptions) {
    this.#now = options.monotonic;
    this.#suspectMs = options.suspectMs ?? 1_000;
    this.#sealHoldMs = options.sealHoldMs ?? 20_000;
    this.#maxWithdrawn = options.maxWithdrawn ?? 4_096;
    this.#onAsleep = options.onAsleep ?? (() => {});
  }

  /** Requests, streams and WebSockets open now. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Whether there is something to tell. */
  get changed(): boolean {
    return this.#changed.size > 0;
  }

  /** Instances known, withdrawn ones included. */
  get size(): number {
    return this.#byId.size;
  }

  /** The epoch of the newest scheduler heard. */
  get epoch(): bigint {
    return this.#epoch;
  }

  /** Where the agent of a node answers; kept when the scheduler is down. */
  agentOf(node: string): string | undefined {
    return this.#agents.get(node);
  }

  get(id: string): Route | undefined {
    return this.#byId.get(id);
  }

  /**
   * Takes a message of the watch.
   * @returns whether the scheduler waits for an answer (a seal, or a refusal of one): it is to be told at once
   */
  apply(message: WatchEndpointsResponse): boolean {
    const version = versionOf(message.version);
    if (version.epoch < this.#epoch) return false; // of a scheduler that was replaced
    this.#epoch = version.epoch;
    if (message.update === EndpointUpdate.HEARTBEAT) return false;
    let urgent = false;
    const named = new Set<string>();
    for (const endpoint of message.endpoints) {
      if (!endpoint.instance) continue;
      named.add(endpoint.instance.id);
      urgent = this.#place(endpoint.instance, endpoint) || urgent;
    }
    for (const id of message.withdrawn) urgent = this.#withdraw(id, version) || urgent;
    if (message.update === EndpointUpdate.COMPLETE) {
      if (message.agentUrl) this.#agents.set(message.node, message.agentUrl);
      for (const route of this.#byNode.get(message.node) ?? []) {
        if (named.has(route.id) || route.standing === "withdrawn") continue;
        // An Ensure's answer may be newer than the list that was made before it.
        if (compareVersions(route.version, version) > 0) continue;
        urgent = this.#withdraw(route.id, version) || urgent;
      }
    }
    return urgent;
  }

  /** The order of things, to be given to {@link learn}: take it before asking. */
  get tick(): number {
    return this.#tick;
  }

  /**
   * Takes the answer to an Ensure.
   * @param asked the {@link tick} at which the Ensure was made
   * @returns the instance to route to; undefined when the answer is older than what is known
   */
  learn(answer: EnsureResponse, asked: number): Route | undefined {
    const { instance, endpoint } = answer;
    if (!instance || !endpoint) return undefined;
    const version = versionOf(answer.version);
    const held = this.#byId.get(instance.id);
    if (!held) return this.#add(instance, endpoint, version);
    if (held.standing === "withdrawn") return this.#revive(held, instance, endpoint, version);
    if (compareVersions(version, held.version) < 0) return held.standing === "open" ? held : undefined;
    if (compareVersions(version, held.version) > 0 || asked >= held.sealedTick)
      this.#open(held, endpoint, version);
    return held.standing === "open" ? held : undefined;
  }

  /**
   * The instance for a request of that tenant: of each slot the highest generation, then the fewest in flight.
   * @param cutOff the scheduler cannot be reached: rather one that may be gone than none (rule 7)
   */
  pick(tenant: string, cutOff = false): Route | undefined {
    const routes = this.#byTenant.get(tenant);
    if (!routes) return undefined;
    const now = this.#now();
    const usable = routes.filter((route) =>
      cutOff
        ? route.standing === "open" || now - route.sealedAt >= this.#sealHoldMs
        : route.standing === "open" && route.suspectUntil <= now,
    );
    let best: Route | undefined;
    for (const route of usable) {
      if (superseded(route, usable)) continue;
      if (!best || freer(route, best)) best = route;
    }
    if (best) best.picked = ++this.#picks;
    return best;
  }

  /** A request begins. Call it in the same turn as {@link pick} (T1), and {@link end} exactly once. */
  begin(route: Route): void {
    route.inFlight++;
    this.#inFlight++;
    route.lastUse = this.#now();
    this.#changed.add(route.id);
  }

  /**
   * A request ended, however it did.
   * @returns whether that is to be told at once
   */
  end(route: Route): boolean {
    route.inFlight--;
    this.#inFlight--;
    route.used = true;
    route.lastUse = this.#now();
    this.#changed.add(route.id);
    return route.standing === "withdrawn" && route.inFlight === 0;
  }

  /** It refused or broke a connection: passed over for a while, unless an Ensure names it again. */
  suspect(route: Route): void {
    route.doubted = true;
    route.suspectUntil = this.#now() + this.#suspectMs;
  }

  /**
   * What the scheduler has not heard; at most `max`, those that it waits for first. Give it to {@link failed} when it
   * could not be told, else to {@link told}.
   */
  take(max: number): Touched[] {
    const now = this.#now();
    const touched: Touched[] = [];
    const waitedFor: string[] = [];
    const others: string[] = [];
    for (const id of this.#changed) {
      const list = this.#settled(id) ? waitedFor : others;
      if (list.length < max) list.push(id);
    }
    for (const id of [...waitedFor, ...others].slice(0, max)) {
      this.#changed.delete(id);
      const route = this.#byId.get(id);
      if (route) touched.push(touchedOf(route, now));
    }
    return touched;
  }

  /** The batch did not arrive, or nobody knows. */
  failed(batch: readonly Touched[]): void {
    for (const { instance } of batch) if (this.#byId.has(instance)) this.#changed.add(instance);
  }

  /** The batch arrived: withdrawn instances that were confirmed need no more attention. */
  told(batch: readonly Touched[]): void {
    for (const { instance, sealed } of batch) {
      if (sealed && this.#byId.get(instance)?.standing === "withdrawn") this.#retire(instance);
    }
  }

  /** A new watch is up: its scheduler is to hear of everything that was used or is sealed. */
  tellAll(): void {
    for (const route of this.#byId.values()) {
      const used = route.used || route.inFlight > 0;
      if (!this.#gone.has(route.id) && (used || route.standing !== "open")) this.#changed.add(route.id);
    }
  }

  #settled(id: string): boolean {
    const standing = this.#byId.get(id)?.standing;
    return standing === "sealed" || standing === "withdrawn";
  }

  /** An endpoint of the watch. */
  #place(instance: InstanceRef, { endpoint, mode, version: said }: TenantEndpoint): boolean {
    if (!endpoint) return false;
    const version = versionOf(said);
    const held = this.#byId.get(instance.id);
    if (held && compareVersions(version, held.version) < 0) return false;
    const route =
      held?.standing === "withdrawn"
        ? this.#revive(held, instance, endpoint, version)
        : (held ?? this.#add(instance, endpoint, version));
    if (!route) return false;
    if (mode !== InstanceMode.QUIESCING) {
      // The same version again (a COMPLETE after a reconnect) does not undo a seal: that was answered to it. Nor does it
      // say again that what was woken since sleeps.
      const newer = compareVersions(version, route.version) > 0 || !held;
      if (newer || route.standing === "open") this.#open(route, endpoint, version);
      if (newer) route.asleep = mode === InstanceMode.FROZEN || mode === InstanceMode.PAGED_OUT;
      if (route.asleep) this.#onAsleep(route);
      return false;
    }
    route.version = version;
    route.host = endpoint.host;
    route.port = endpoint.port;
    this.#changed.add(route.id);
    if (route.inFlight > 0) return true; // busy: goes on, the scheduler cancels
    this.#seal(route);
    return true;
  }

  #withdraw(id: string, version: Version): boolean {
    const route = this.#byId.get(id);
    if (!route) return this.#withdrawUnknown(id, version);
    if (compareVersions(version, route.version) < 0) return false;
    route.version = version;
    this.#changed.add(id);
    if (route.standing !== "withdrawn") {
      route.standing = "withdrawn";
      this.#unlist(route);
    }
    this.#gone.delete(id);
    return route.inFlight === 0;
  }

  /** Never heard of, yet the scheduler may wait for this gateway too: nothing is in flight here. */
  #withdrawUnknown(id: string, version: Version): boolean {
    this.#byId.set(id, { ...blank(this.#now()), id, version, standing: "withdrawn" });
    this.#changed.add(id);
    return true;
  }

  #add(instance: InstanceRef, endpoint: { host: string; port: number }, version: Version): Route {
    const route: Route = {
      ...blank(this.#now()),
      id: instance.id,
      tenant: instance.tenant,
      node: instance.node,
      slot: instance.slot,
      generation: instance.generation,
      host: endpoint.host,
      port: endpoint.port,
      version,
    };
    this.#byId.set(route.id, route);
    const there = this.#byNode.get(route.node);
    if (there) there.add(route);
    else this.#byNode.set(route.node, new Set([route]));
    const routes = this.#byTenant.get(route.tenant);
    if (routes) routes.push(route);
    else this.#byTenant.set(route.tenant, [route]);
    return route;
  }

  /**
   * Withdrawn with its node, which was given up and is back: only a newer word than the withdrawal says so.
   * @returns undefined for an older one
   */
  #revive(
    held: Route,
    instance: InstanceRef,
    endpoint: { host: string; port: number },
    version: Version,
  ): Route | undefined {
    if (compareVersions(version, held.version) <= 0) return undefined;
    this.#gone.delete(held.id);
    if (held.tenant === "") return this.#add(instance, endpoint, version); // never known but as withdrawn
    this.#open(held, endpoint, version);
    this.#byTenant.set(held.tenant, [...(this.#byTenant.get(held.tenant) ?? []), held]);
    return held;
  }

  #open(route: Route, endpoint: { host: string; port: number }, version: Version): void {
    route.standing = "open";
    route.version = version;
    route.host = endpoint.host;
    route.port = endpoint.port;
    route.suspectUntil = 0;
  }

  #seal(route: Route): void {
    route.standing = "sealed";
    route.sealedTick = ++this.#tick;
    route.sealedAt = this.#now();
  }

  #unlist(route: Route): void {
    const rest = (this.#byTenant.get(route.tenant) ?? []).filter((other) => other !== route);
    if (rest.length > 0) this.#byTenant.set(route.tenant, rest);
    else this.#byTenant.delete(route.tenant);
  }

  #retire(id: string): void {
    this.#gone.add(id);
    for (const first of this.#gone) {
      if (this.#gone.size <= this.#maxWithdrawn) break;
      this.#gone.delete(first);
      this.#forget(first);
    }
  }

  #forget(id: string): void {
    const route = this.#byId.get(id);
    if (!route) return;
    this.#byId.delete(id);
    const there = this.#byNode.get(route.node);
    if (there?.delete(route) && there.size === 0) this.#byNode.delete(route.node);
  }
}

/** Whether another one has taken its slot (rule 2). */
function superseded(route: Route, among: readonly Route[]): boolean {
  return (
    among.length > 1 &&
    among.some((other) => other.slot === route.slot && other.generation > route.generation)
  );
}

function freer(a: Route, b: Route): boolean {
  if (a.inFlight !== b.inFlight) return a.inFlight < b.inFlight;
  return a.picked < b.picked;
}

function blank(now: number): Route {
  return {
    id: "",
    tenant: "",
    node: "",
    slot: 0,
    generation: 0n,
    host: "",
    port: 0,
    version: oldest,
    standing: "open",
    asleep: false,
    inFlight: 0,
    lastUse: now,
    pooled: false,
    doubted: false,
    used: false,
    suspectUntil: 0,
    sealedTick: -1,
    sealedAt: 0,
    picked: 0,
  };
}

function touchedOf(route: Route, now: number): Touched {
  return create(TouchedSchema, {
    instance: route.id,
    idleFor: toDuration(route.inFlight > 0 ? 0 : Math.max(0, now - route.lastUse)),
    inFlight: route.inFlight,
    seen: create(EndpointVersionSchema, route.version),
    sealed: route.standing !== "open" && route.inFlight === 0,
  });
}
