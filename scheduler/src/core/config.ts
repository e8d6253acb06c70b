import { type CollectBounds, defaultCollectBounds } from "./collect.ts";

/** What the core is told once. All times in ms. */
export interface CoreConfig {
  /** The cell's name. */
  readonly cell: string;
  /** Rule 1: live instances in the cluster never exceed it. */
  readonly maxConcurrent: number;
  /** Since its last use, until an instance is frozen, paged out and stopped (idle-killed), where its spec says nothing. */
  readonly idleFreezeAfterMs: number;
  readonly idlePageOutAfterMs: number;
  readonly idleStopAfterMs: number;
  /** An instance is not evicted before it has been unused for so long: whoever asked for it gets to use it. */
  readonly minResidenceMs: number;
  /** How long gateways may take to confirm a quiescing instance; then the attempt is abandoned. */
  readonly quiesceMs: number;
  /** After an abandoned attempt, until the next one on that instance. */
  readonly quiesceAgainMs: number;
  /** Drain and grace where the spec says nothing. */
  readonly drainMs: number;
  readonly graceMs: number;
  /** Readiness timeout where the spec says nothing. */
  readonly readinessMs: number;
  /** Most calls that may wait, in all and per tenant. */
  readonly maxWaiting: number;
  readonly maxWaitingPerTenant: number;
  /** How often nodes report, and after how long without a report they are late and lost. */
  readonly reportPeriodMs: number;
  readonly nodeLateMs: number;
  readonly nodeLostMs: number;
  /** A new leader declares no node lost before this, and evicts nothing before gateways had time to come back. */
  readonly firstPeriodMs: number;
  readonly gatewayReturnMs: number;
  /** In-flight counts of a gateway that went away are believed for this long; of a client, after each Touch. */
  readonly gatewayGoneMs: number;
  readonly clientTouchMs: number;
  /** Back-off of a tenant that fails: the first retry is immediate, the second waits about `base`. */
  readonly backoffBaseMs: number;
  readonly backoffMaxMs: number;
  /** So many failures within the window are a crash loop: its retries wait the longest, and it is told as such. */
  readonly crashLoopFailures: number;
  readonly crashLoopWindowMs: number;
  /** An instance that served for so long has forgiven the failures before it. */
  readonly minUptimeMs: number;
  /** Until a stop that could not be confirmed is asked again. */
  readonly stopAgainMs: number;
  /** What a new instance is charged before it, or enough others, were observed. */
  readonly defaultMemoryBytes: number;
  readonly defaultCpuMillis: number;
  /** What is predicted to be needed of a node's memory may exceed it by this factor. */
  readonly overcommitMemory: number;
  /** "pack" fills a node before the next (up to `packTo` of it); "spread" takes the emptiest. */
  readonly placement: "pack" | "spread";
  readonly packTo: number;
  /** So few nodes are all looked at for a placement: that costs nothing, and two of three would look like a whim. */
  readonly sampleLeast: number;
  /** Instances on their way to ready on one node, per core of it; starts are bound by CPU. */
  readonly startsPerCore: number;
  /** Above this share of time in which some task waited for memory (PSI, 10 s, in percent) a node takes no new instance. */
  readonly maxMemoryPressure: number;
  /** A node that could not start a tenant, by its own fault, is avoided by that tenant for so long. */
  readonly nodePenaltyMs: number;
  /** How long a replacement may wait for a place. */
  readonly moveMs: number;
  /** Replacements under way at once for one node that is drained. */
  readonly drainAtOnce: number;
  /** Requests in flight that one instance is to have, where the spec says nothing. */
  readonly targetConcurrency: number;
  /** So long the load must have needed fewer instances before one goes. */
  readonly scaleDownMs: number;
  /** A node whose tenants have less of its memory left than this share, or stall on it for so much of the time (PSI full,
   * in percent), has its idle instances put to sleep early. */
  readonly lowMemory: number;
  readonly memoryStall: number;
  /** A node on which some task waits for CPU for so much of the time (PSI some, in percent) has its idle instances frozen early. */
  readonly cpuStall: number;
  /** Slowly moves instances from full nodes to empty ones. */
  readonly rebalance: boolean;
  readonly rebalanceMs: number;
  /** Bound of the number of tenants. */
  readonly maxTenants: number;
  /** And of those with limits on their use: the ledger is told of all of them in one message. */
  readonly maxLimited: number;
  /** Which releases are kept. */
  readonly releases: CollectBounds;
}

export const defaultCoreConfig: CoreConfig = {
  cell: "local",
  maxConcurrent: 1000,
  idleFreezeAfterMs: 30_000,
  idlePageOutAfterMs: 120_000,
  idleStopAfterMs: 1_800_000,
  minResidenceMs: 1_000,
  quiesceMs: 2_000,
  quiesceAgainMs: 1_000,
  drainMs: 5_000,
  graceMs: 5_000,
  readinessMs: 30_000,
  maxWaiting: 10_000,
  maxWaitingPerTenant: 2_000,
  reportPeriodMs: 1_000,
  nodeLateMs: 3_500,
  nodeLostMs: 10_000,
  firstPeriodMs: 15_000,
  gatewayReturnMs: 2_000,
  gatewayGoneMs: 10_000,
  clientTouchMs: 30_000,
  backoffBaseMs: 500,
  backoffMaxMs: 60_000,
  crashLoopFailures: 5,
  crashLoopWindowMs: 120_000,
  minUptimeMs: 10_000,
  stopAgainMs: 500,
  defaultMemoryBytes: 32 * 1024 * 1024,
  defaultCpuMillis: 50,
  overcommitMemory: 1,
  placement: "pack",
  packTo: 0.8,
  sampleLeast: 8,
  startsPerCore: 8,
  maxMemoryPressure: 40,
  nodePenaltyMs: 2_000,
  moveMs: 60_000,
  drainAtOnce: 16,
  targetConcurrency: 50,
  scaleDownMs: 60_000,
  lowMemory: 0.05,
  memoryStall: 10,
  cpuStall: 50,
  rebalance: false,
  rebalanceMs: 10_000,
  maxTenants: 1_000_000,
  maxLimited: 20_000,
  releases: defaultCollectBounds,
};
