/** What every instance of this agent works with. */
import type { Logger } from "@warren/common/log";
import type { Clock } from "@warren/common/time";
import type { TranspilerCaches } from "./caches.ts";
import type { EndedIds } from "./ended.ts";
import type { Gate } from "./gate.ts";
import type { ExitWatcher } from "./host/exits.ts";
import type { Host } from "./host/host.ts";
import type { Instance } from "./instance.ts";
import type { LogStore } from "./logs.ts";
import type { AgentMetrics } from "./metrics.ts";
import type { Ports } from "./ports.ts";
import type { ProcessTable } from "./processes.ts";
import type { Readiness, ReadinessSpec } from "./readiness.ts";
import type { RecordStore } from "./records.ts";
import type { ReleaseCache } from "./releases.ts";
import type { Sandbox } from "./sandbox.ts";
import type { Spawner } from "./spawn.ts";
import type { Spool } from "./spool.ts";
import type { VolumeStore } from "./volumes/store.ts";

/** How it is learnt that an instance is ready; `said` aborts when the tenant says so. */
export type ReadinessChooser = (spec: ReadinessSpec, port: number, said: AbortSignal) => Readiness;

export interface Mechanism {
  readonly node: string;
  /** Address by which gateways reach its tenants. */
  readonly tenantHost: string;
  /** HOME and TMPDIR of instances are made below this. */
  readonly homes: string;
  /** Instances' own views of their releases are made below this. */
  readonly views: string;
  /** Sockets by which tenants talk to the agent are made below this. */
  readonly sockets: string;
  /** A tenant's uid is this plus a port that is its own. */
  readonly uidBase: number;
  readonly clock: Clock;
  readonly log: Logger;
  readonly host: Host;
  readonly sandbox: Sandbox;
  readonly spawner: Spawner;
  readonly readiness: ReadinessChooser;
  readonly table: ProcessTable;
  readonly ports: Ports;
  readonly gate: Gate;
  readonly releases: ReleaseCache;
  readonly caches: TranspilerCaches;
  readonly volumes: VolumeStore;
  readonly exits: ExitWatcher;
  readonly records: RecordStore;
  readonly logs: LogStore;
  readonly ended: EndedIds;
  readonly spool: Spool;
  readonly metrics: AgentMetrics;
  /** All instances of a tenant on this node. */
  readonly instancesOf: (tenant: string) => Instance[];
  /** Aborts when the agent ends without waiting for its instances any longer. */
  readonly signal: AbortSignal;
}
