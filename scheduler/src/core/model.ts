/** What the core remembers. Only the functions of this directory change it. */
import type {
  Endpoint,
  Exit,
  ExitReason,
  InstanceMode,
  InstanceRef,
  InstanceState,
  Isolation,
  NodeCapacity,
  NodeHost,
  NodePressure,
  Release,
  RolloutState,
  StartPhases,
  StorageReport,
  TenantSpec,
  Usage,
  UsageLimit,
  VolumeState,
} from "@warren/proto/common";
import { FairQueue } from "./fair-queue.ts";
import { Lru } from "./lru.ts";
import { type Need, Peaks } from "./peaks.ts";
import type { Gaps } from "./sleep-times.ts";
import { Timers } from "./timers.ts";

/** A moment, as the shell gives it with every input. Decisions use `mono` only; `wall` is for what is shown and for schedules. */
export interface Moment {
  /** Monotonic ms. */
  readonly mono: number;
  /** ms since 1970. */
  readonly wall: number;
}

/** A limit as the ledger found it reached. */
export interface ReachedLimit {
  readonly tenant: string;
  readonly limit: UsageLimit;
  /** In whole units of the meter. */
  readonly used: bigint;
  /** End of its period, ms since 1970. */
  readonly until: number;
}

/** The same as it is kept: when it is over by the monotonic clock, since the wall clock may be set. */
export interface HeldLimit extends ReachedLimit {
  readonly overAt: number;
}

/** A spec as it was applied. */
export interface Revision {
  readonly spec: TenantSpec;
  readonly version: number;
  /** Of the revisions up to this one, the first whose processes are like its own: theirs need no replacement. */
  readonly since: number;
}

export interface Tenant {
  readonly key: string;
  /** What the user wants. */
  newest: Revision;
  /** Last version given to a spec of it: above the newest while one is being persisted, or when that has failed. */
  offered: number;
  /** Of that version the store has not said in time whether it took it; whoever offered it was told so. */
  inDoubt?: number;
  /** What served before the newest was applied: where a rollback leads. */
  previous?: Revision;
  /** The newest did not become ready in a rollout: `previous` serves on. */
  rejected: boolean;
  readonly createdAt: number;
  updatedAt: number;
  /** Being deleted: to callers it is gone already. */
  deleting: boolean;
  /** Instances that it is to have without anybody asking: by load and restart policy. Its spec's `min` comes on top. */
  scale: number;
  /** Stopped by somebody: not even its `min` is started before the next use. */
  paused: boolean;
  /**
   * Placements that ended and are to be replaced, with their nodes: kept in the log until then, so that a new leader knows
   * (restart.ts).
   */
  owed?: Map<string, string>;
  /** Failures in a row, and until when (mono) it is not started. */
  failures: number;
  backoffUntil: number;
  /** When it failed lately (mono), oldest first: the sliding window that makes a crash loop. */
  failedAt?: number[];
  lastExit?: Exit;
  /** An instance of it was to be evicted (mono): why, and what would help. It may have been used in time. */
  evicted?: { readonly at: number; readonly message: string };
  /** Nodes that could not start it, by their own fault, and until when (mono) they are avoided. */
  avoid?: Map<string, number>;
  /** Nodes that refused it at the last try, by reason, if that was in vain. */
  nowhere?: Readonly<Record<string, number>>;
  /** The kind of all nodes was against it when so many had come (`joined`): waiting is in vain until another does. */
  unfitFor?: number;
  /** Where its last placement went, and why. */
  where?: string;
  /** Its last placement in this epoch: where to look for the output of an instance that is gone. */
  lastRef?: InstanceRef;
  /** What its instances have used, once observed. */
  peaks?: Peaks;
  /** How long it is left alone between uses, where its spec says adaptive. */
  gaps?: Gaps;
  /** Most instances needed since then (mono), by load: what scaling down waits for. */
  load?: { peak: number; since: number };
  /** Limits on its use that the ledger found reached, by meter and period; none where there are none (limits.ts). */
  limits?: Map<string, HeldLimit>;
  /** There is a record of such limits, perhaps of some that are over. */
  limitsKept?: boolean;
  rollout?: Rollout;
  /** Replacements of its instances under way; none where there are none. */
  moves?: Set<Move>;
  /** The tenant's timer that counts (mono); others of it are stale. */
  armedAt: number;
}

/** The replacement of a tenant's instances by those of another revision, or its last one. */
export interface Rollout {
  state: RolloutState;
  readonly to: Revision;
  readonly from: Revision;
  /** Instances still to be replaced. */
  readonly todo: Set<string>;
  /** Those being replaced now. */
  readonly moving: Set<string>;
  readonly total: number;
  replaced: number;
  message: string;
  exit?: Exit;
  /** Id of the first one that did not become ready. */
  failed?: string;
  /** Callers of Reload. */
  readonly calls: { readonly call: string; readonly deadline: number }[];
  /** What replaced them. */
  readonly made: InstanceRef[];
}

/** An instance that is to be replaced by another one in its slot, wherever there is a place. */
export interface Move {
  readonly old: InstanceRef;
  /** "adopted": begun by the scheduler before this one, and found by its two instances. */
  readonly why: "reload" | "drain" | "rebalance" | "adopted";
  readonly revision: Revision;
  /** Until when (mono) a place must be found. */
  readonly placeBy: number;
  /** The old one goes first: two must not run, or there is no place for two. */
  stopFirst: boolean;
  /** Its successor, once placed. */
  successor?: string;
}

/** How a move ended. */
export type MoveEnd =
  | { readonly kind: "moved"; readonly successor: Instance }
  /** The old one went by itself before it was replaced: nothing is left to move. */
  | { readonly kind: "moot" }
  /** No successor became ready; the old one is as it was, unless it had to go first. */
  | {
      readonly kind: "failed";
      readonly message: string;
      readonly exit?: Exit;
      /** Its id, if there was one. */
      readonly instance?: string;
    };

/**
 * Where an instance is in its life, as the scheduler sees it:
 *
 *     persisting → starting → ready → draining → stopping → (gone)
 *
 * `unconfirmed` is an instance that a scheduler before this one placed, and of which its node has not spoken yet.
 */
export type Phase =
  /** `boot`: that of the node when it was placed there. */
  | { readonly kind: "persisting"; readonly boot?: string; stopRequested?: ExitReason }
  | { readonly kind: "starting"; readonly since: number; readonly until: number }
  | { readonly kind: "ready"; attempt?: Attempt; command?: Command }
  | {
      readonly kind: "draining";
      readonly reason: ExitReason;
      readonly until: number;
      /** At `until` it serves on, rather than that a request is cut. */
      readonly patient: boolean;
    }
  | {
      readonly kind: "stopping";
      readonly reason: ExitReason;
      askAgainAt: number;
      asked: boolean;
      /** It is stopped for being idle: not if it was thawed since. */
      readonly ifWakes?: bigint;
    }
  | { readonly kind: "unconfirmed" };

/** An attempt to put an idle instance away: given up at `until`, or at the first sign of use. */
export interface Attempt {
  readonly to: { readonly kind: "freeze" } | { readonly kind: "stop"; readonly reason: ExitReason };
  readonly until: number;
}

/** What its agent was told and has not answered yet. */
export interface Command {
  readonly kind: "freeze" | "page-out" | "thaw";
  /** Which one: the answer to an earlier one says nothing any more. */
  readonly number: number;
}

export interface Instance {
  readonly ref: InstanceRef;
  phase: Phase;
  /** What its node says that it does while it is ready; frozen or not, it holds its place and serves. */
  mode: InstanceMode;
  /** It was to be frozen and nobody knows whether it was, or will be: only a thaw, which raises its wakes, says that it is awake. */
  inDoubt?: boolean;
  /** As its node said last; a freeze that names older ones is refused. */
  wakes: bigint;
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
  /** It was paged out since `usage` was measured: what it holds is not known. */
  isUsageStale?: boolean;
  pid: number;
  /** The state that its node told last, and when that was heard (mono). */
  told?: { readonly state: InstanceState; readonly at: number };
  startedAtWall: number;
  startMs: number;
  /** When it began to serve (mono), as far as this scheduler knows. */
  readySince?: number;
  startPhases?: StartPhases;
  /** Its node was declared lost: it holds no place, and goes when its node is back and another has taken over. */
  lost: boolean;
  /** The agent process that was told to start it, until its node has spoken of it: the command may still be on its way. */
  asked?: string;
  /** The instance that it replaces: its failing is not the tenant's (replace.ts). */
  replaces?: string;
  /** What its node is charged for it. */
  charge: Need;
  /** The instance's timer that counts (mono); others of it are stale. */
  armedAt: number;
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
  /** Ids of the instances placed on it that are not gone, those given up with it included. */
  readonly instances: Set<string>;
  /** Of these, those not given up. */
  placed: number;
  /** Of these, those on their way to ready. */
  starting: number;
  /** Sum of what its instances are charged. */
  charged: Need;
  draining?: NodeDrain;
  /** Copies of volumes that it holds, by id, as it measured them last; some may have been given up. */
  copies?: Map<string, StorageReport>;
  /** Not before this moment (mono) is its memory relieved again. */
  relieveAt: number;
  /** Likewise its CPU. */
  easeAt: number;
}

/** A volume, where it lies, and what is done with it. */
export interface HeldVolume {
  record: VolumeState;
  /** Something may have been started with this copy. */
  attempted: boolean;
  /** As its node measured last, ms since 1970. */
  used?: { readonly bytes: bigint; readonly wall: number };
  task?: "backup" | "removal";
  /** Not before this moment (mono) is another backup tried. */
  backupAt: number;
  /** Why the last backup failed, or the last try to bring one back. */
  backupError?: string;
  restoreError?: string;
  /** Those who wait for its backup. */
  readonly calls: string[];
}

/** A node is being emptied. */
export interface NodeDrain {
  readonly calls: { readonly call: string; readonly deadline: number }[];
  /** The soonest that anybody asked for (mono). */
  until: number;
  moved: number;
  stopped: number;
  /** When what could not be moved is tried again (mono). */
  againAt: number;
  /** Ids of volumes whose backup was begun, and was made, once nothing ran there. */
  readonly saving: Set<string>;
  readonly saved: Set<string>;
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
  /** What becomes of the tenant's volumes, of a delete. */
  readonly volumes?: "keep" | "remove";
  /** Its deadline passed and its call was refused; a delete goes on all the same. */
  late?: boolean;
  /** A delete of which nothing is left but the record, which the store is to take. */
  persisting?: boolean;
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
  /** The same, to pick from. */
  roster: Node[];
  /** Nodes that had a release started on them lately, by digest; a hint where it is in the cache. */
  readonly holders: Map<string, Set<string>>;
  readonly instances: Map<string, Instance>;
  /** Ids of instances by tenant; no entry where there are none. */
  readonly byTenant: Map<string, Set<string>>;
  /** Ready ones in the order of their last use. */
  readonly lru: Lru;
  /** Those whose place will be free without anyone doing more, if their node can be told. */
  readonly leaving: Set<string>;
  /** By tenant and name; of deleted tenants too. */
  readonly volumes: Map<string, Map<string, HeldVolume>>;
  readonly waiters: Map<string, Waiter[]>;
  waiting: number;
  /** Tenants that want an instance. */
  readonly queue: FairQueue;
  /** Those that no node could take just now: tried again when nodes change. */
  readonly parked: Set<string>;
  /** Replacements under way by the id of the old one, and by that of the new one. */
  readonly moves: Map<string, Move>;
  readonly successors: Map<string, Move>;
  readonly operations: Map<string, Operation[]>;
  readonly gateways: Map<string, Gateway>;
  readonly timers: Timers;
  /** How often nodes have come: what their kind was against is tried anew then. */
  joined: number;
  /** When those that no node could take were last tried everywhere (mono). */
  retriedAt: number;
  /** Not before this moment (mono) is another placement tried: the store did not take the last one. */
  placeAgainAt: number;
  /** The last tick, and since when (mono) they came without a gap: whoever is stopped hears no reports. */
  lastTick: number;
  awakeSince: number;
  /** Placements in this epoch. With the epoch it makes a generation, which so rises even for a tenant deleted and made anew. */
  placements: number;
  /** Commands given in this epoch: freezes and thaws. */
  commands: number;
  /** Last version given to a tenant's spec. */
  specs: number;
  /** Tenants whose specs limit their use, and a number that rises with each change of it. */
  readonly limited: Map<string, readonly UsageLimit[]>;
  limitsVersion: number;
  /** Last endpoint version given. */
  n: number;
  /** Instances that hold a place under the cap. */
  live: number;
  readonly counts: Record<string, number>;
  /** What instances of all tenants use when they are young: what is expected of one of which nothing is known. */
  readonly young: Peaks;
  /** Nodes that a filter refused, by filter. */
  readonly refusals: Record<string, number>;
}

export function emptyState(epoch: bigint, since: number): State {
  return {
    epoch,
    since,
    tenants: new Map(),
    releases: new Map(),
    nodes: new Map(),
    roster: [],
    holders: new Map(),
    instances: new Map(),
    byTenant: new Map(),
    lru: new Lru(),
    leaving: new Set(),
    volumes: new Map(),
    waiters: new Map(),
    waiting: 0,
    queue: new FairQueue(),
    parked: new Set(),
    moves: new Map(),
    successors: new Map(),
    operations: new Map(),
    gateways: new Map(),
    timers: new Timers(),
    joined: 0,
    retriedAt: 0,
    placeAgainAt: 0,
    lastTick: since,
    awakeSince: since,
    placements: 0,
    commands: 0,
    specs: 0,
    limited: new Map(),
    limitsVersion: 1,
    n: 0,
    live: 0,
    young: new Peaks(),
    counts: {},
    refusals: {},
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

const none: readonly Instance[] = [];

export function instancesOf(state: State, tenant: string): readonly Instance[] {
  const ids = state.byTenant.get(tenant);
  return ids ? Array.from(ids, (id) => state.instances.get(id)!) : none;
}

export function instancesOn(state: State, node: Node): Instance[] {
  return Array.from(node.instances, (id) => state.instances.get(id)!);
}

/** The revision that new instances are started with. */
export function serving(tenant: Tenant): Revision {
  return tenant.rejected && tenant.previous ? tenant.previous : tenant.newest;
}

/** The spec that holds for an instance: its own revision's while that is known, else the one that serves. */
export function specOf(tenant: Tenant, ref: InstanceRef): TenantSpec {
  const version = Number(ref.specVersion);
  if (version >= tenant.newest.since) return tenant.newest.spec;
  return tenant.previous && version >= tenant.previous.since ? tenant.previous.spec : serving(tenant).spec;
}

/** Whether it is of a tenant of that name that was deleted: of a version from before this one's first. */
export function isOfNamesake({ newest, previous }: Tenant, { specVersion }: InstanceRef): boolean {
  return previous === undefined && specVersion > 0n && Number(specVersion) < newest.since;
}

/** Whether it is on its way out. */
export function isLeaving({ phase }: Instance): boolean {
  return (
    phase.kind === "stopping" ||
    phase.kind === "draining" ||
    (phase.kind === "persisting" && phase.stopRequested !== undefined)
  );
}

/** The tenant's instances that serve or will: neither given up with a node, nor on their way out. */
export function standingOf(state: State, tenant: string): Instance[] {
  const standing: Instance[] = [];
  for (const instance of instancesOf(state, tenant)) {
    if (!instance.lost && !isLeaving(instance)) standing.push(instance);
  }
  return standing;
}

/** Slots that have a standing instance: one that is being replaced and its successor count once. */
export function standingSlots(state: State, tenant: string): number {
  const ids = state.byTenant.get(tenant);
  if (!ids) return 0;
  const slots = new Set<number>();
  for (const { ref } of standingOf(state, tenant)) slots.add(ref.slot);
  return slots.size;
}

/** The newest of the tenant's instances that is not given up with its node; what is shown and followed. */
export function newestOf(state: State, tenant: string): Instance | undefined {
  let best: Instance | undefined;
  for (const instance of instancesOf(state, tenant)) {
    if (!instance.lost && (!best || instance.ref.generation > best.ref.generation)) best = instance;
  }
  return best;
}

/** The one that an Ensure is answered with: ready, rather awake and not about to go, then the newest. */
export function readyOf(state: State, tenant: string): Instance | undefined {
  let best: Instance | undefined;
  for (const instance of instancesOf(state, tenant)) {
    if (instance.lost || instance.phase.kind !== "ready") continue;
    if (!best || rank(instance) > rank(best)) best = instance;
    else if (rank(instance) === rank(best) && instance.ref.generation > best.ref.generation) best = instance;
  }
  return best;
}

function rank({ phase, mode }: Instance): number {
  if (phase.kind !== "ready") return -1;
  return (phase.attempt || phase.command ? 0 : 2) + (mode <= 1 ? 1 : 0);
}
