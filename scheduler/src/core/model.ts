/** What the core remembers. Only the functions of this directory change it. */
import type {
  Endpoint,
  Exit,
  ExitReason,
  InstanceMode,
  InstanceRef,
  Isolation,
  NodeCapacity,
  NodeHost,
  NodePressure,
  Release,
  StartPhases,
  TenantSpec,
  Usage,
} from "@warren/proto/common";

/** A moment, as the shell gives it with every input. Decisions use `mono` only; `wall` is for what is shown. */
export interface Moment {
  /** Monotonic ms. */
  readonly mono: number;
  /** ms since 1970. */
  readonly wall: number;
}

export interface Tenant {
  readonly key: string;
  spec: TenantSpec;
  version: number;
  readonly createdAt: number;
  updatedAt: number;
  /** Being deleted: to callers it is gone already. */
  deleting: boolean;
  /** Failures in a row, and until when (mono) it is not started. */
  failures: number;
  backoffUntil: number;
  lastExit?: Exit;
  /** Nodes that could not start it, by their own fault, and until when (mono) they are avoided. */
  readonly avoid: Map<string, number>;
  /** Nodes that refused it at the last try, by reason, if that was in vain. */
  nowhere?: Readonly<Record<string, number>>;
  /** Where its last placement went, and why. */
  where?: string;
  /** Its last placement in this epoch: where to look for the output of an instance that is gone. */
  lastRef?: InstanceRef;
}

/**
 * Where an instance is in its life, as the scheduler sees it:
 *
 *     persisting → starting → ready → draining → stopping → (gone)
 *
 * `unconfirmed` is an instance that a scheduler before this one placed, and of which its node has not spoken yet.
 */
export type Phase =
  | { readonly kind: "persisting"; stopRequested?: ExitReason }
  | { readonly kind: "starting"; readonly since: number; readonly until: number }
  | { readonly kind: "ready"; quiescing?: Quiescing }
  | { readonly kind: "draining"; readonly reason: ExitReason; readonly until: number }
  | { readonly kind: "stopping"; readonly reason: ExitReason; askAgainAt: number; asked: boolean }
  | { readonly kind: "unconfirmed" };

/** An attempt to put an idle instance away: given up at `until`, or at the first sign of use. */
export interface Quiescing {
  readonly reason: ExitReason;
  readonly until: number;
}

export interface Instance {
  readonly ref: InstanceRef;
  phase: Phase;
  /** What its node says that it does while it is ready; frozen or not, it holds its place and serves. */
  mode: InstanceMode;
  /** The rung that it runs on; UNSPECIFIED until its node has said so. */
  isolation: Isolation;
  endpoint?: Endpoint;
  /** `n` of the version of its endpoint; the epoch is the core's. */
  version: number;
  /** Last use (mono). */
  lastUsed: number;
  /** Not before this moment (mono) is another attempt made to put it away. */
  notBefore: number;
  /** Requests in flight and what was confirmed, by who tells. */
  readonly tellers: Map<string, Teller>;
  usage?: Usage;
  pid: number;
  startedAtWall: number;
  startMs: number;
  /** When it began to serve (mono), as far as this scheduler knows. */
  readySince?: number;
  startPhases?: StartPhases;
  /** Its node was declared lost: it holds no place, and goes when its node is back and another has taken over. */
  lost: boolean;
}

export interface Teller {
  inFlight: number;
  /** Newest `n` that it sealed: it sends the instance nothing more without Ensure. */
  sealed: number;
  /** When it last told (mono). */
  at: number;
}

export interface Node {
  readonly name: string;
  agentUrl: string;
  bootId: string;
  /** Empty until it has joined this scheduler. */
  incarnation: string;
  version: string;
  capacity?: NodeCapacity;
  pressure?: NodePressure;
  isolation: readonly Isolation[];
  host?: NodeHost;
  labels: Readonly<Record<string, string>>;
  allowDirectories: boolean;
  cordoned: boolean;
  /** Joined, and its inventory is known. */
  confirmed: boolean;
  lost: boolean;
  /** mono; when this scheduler took over, for one not heard of since. */
  lastReport: number;
  lastReportWall: number;
  /** Smoothed CPU of its tenants in thousandths of a core. */
  cpuMillis: number;
}

/** An Ensure that waits. */
export interface Waiter {
  readonly call: string;
  readonly tenant: string;
  readonly deadline: number;
  /** It had to wait for a start. */
  readonly cold: boolean;
}

/** A Stop, Restart or Delete that waits until nothing of the tenant is left. */
export interface Operation {
  readonly call: string;
  readonly kind: "stop" | "restart" | "delete";
  readonly tenant: string;
  readonly deadline: number;
  readonly stopped: InstanceRef[];
  /** Its deadline passed and its call was refused; a delete goes on all the same. */
  late?: boolean;
}

export interface Gateway {
  /** How many watches it has open; 0 and `goneAt` set once it went away. */
  watches: number;
  goneAt: number;
  publicUrl: string;
}

export interface State {
  readonly epoch: bigint;
  /** When this scheduler took over (mono). */
  readonly since: number;
  readonly tenants: Map<string, Tenant>;
  readonly releases: Map<string, Release>;
  readonly nodes: Map<string, Node>;
  readonly instances: Map<string, Instance>;
  /** Ids of instances by tenant; no entry where there are none. */
  readonly byTenant: Map<string, Set<string>>;
  readonly waiters: Map<string, Waiter[]>;
  waiting: number;
  /** Tenants that want an instance and have none, first come first served. */
  readonly queue: Set<string>;
  readonly operations: Map<string, Operation[]>;
  readonly gateways: Map<string, Gateway>;
  /** The last tick, and since when (mono) they came without a gap: whoever is stopped hears no reports. */
  lastTick: number;
  awakeSince: number;
  /** Placements in this epoch. With the epoch it makes a generation, which so rises even for a tenant deleted and made anew. */
  placements: number;
  /** Last version given to a tenant's spec. */
  specs: number;
  /** Last endpoint version given. */
  n: number;
  /** Instances that hold a place under the cap. */
  live: number;
  readonly counts: Record<string, number>;
}

export function emptyState(epoch: bigint, since: number): State {
  return {
    epoch,
    since,
    tenants: new Map(),
    releases: new Map(),
    nodes: new Map(),
    instances: new Map(),
    byTenant: new Map(),
    waiters: new Map(),
    waiting: 0,
    queue: new Set(),
    operations: new Map(),
    gateways: new Map(),
    lastTick: since,
    awakeSince: since,
    placements: 0,
    specs: 0,
    n: 0,
    live: 0,
    counts: {},
  };
}

/** Requests in flight, as far as it is known and believed. */
export function inFlight(
  state: State,
  instance: Instance,
  at: Moment,
  config: { clientTouchMs: number },
): number {
  let sum = 0;
  for (const [source, teller] of instance.tellers) {
    if (teller.inFlight === 0) continue;
    if (state.gateways.has(source) || at.mono - teller.at < config.clientTouchMs) sum += teller.inFlight;
  }
  return sum;
}

export function instancesOf(state: State, tenant: string): Instance[] {
  const ids = state.byTenant.get(tenant);
  return ids ? [...ids].map((id) => state.instances.get(id)!) : [];
}

/** Where a tenant's HTTP traffic goes; empty while no gateway has said how it is reached. */
export function urlOf(state: State, tenant: string): string {
  let template = "";
  for (const gateway of state.gateways.values()) if (gateway.publicUrl) template = gateway.publicUrl;
  return template.replaceAll("{tenant}", tenant);
}

/** Instances placed on a node that are not gone, nor given up with it. */
export function placedOn(state: State, node: string): number {
  let n = 0;
  for (const instance of state.instances.values()) if (instance.ref.node === node && !instance.lost) n++;
  return n;
}

/** The tenant's instance that counts: not given up with its node; of several, the highest generation (rule 2). */
export function standing(state: State, tenant: string): Instance | undefined {
  let best: Instance | undefined;
  for (const instance of instancesOf(state, tenant)) {
    if (!instance.lost && (!best || instance.ref.generation > best.ref.generation)) best = instance;
  }
  return best;
}
