/** What every instance of this agent works with. */
import type { Logger } from "@warren/common/log";
import type { Clock } from "@warren/common/time";
import type { TenantBun } from "./command.ts";
import type { EndedIds } from "./ended.ts";
import type { ExitWatcher } from "./exits.ts";
import type { Gate } from "./gate.ts";
import type { Host } from "./host/host.ts";
import type { LogStore } from "./logs.ts";
import type { AgentMetrics } from "./metrics.ts";
import type { Ports } from "./ports.ts";
import type { ProcessTable } from "./processes.ts";
import type { RecordStore } from "./records.ts";
import type { ReleaseCache } from "./releases.ts";
import type { Spool } from "./spool.ts";

export interface Mechanism {
  readonly node: string;
  readonly bootId: string;
  /** HOME and TMPDIR of instances are made below this. */
  readonly homes: string;
  readonly clock: Clock;
  readonly log: Logger;
  readonly host: Host;
  readonly table: ProcessTable;
  readonly ports: Ports;
  readonly gate: Gate;
  readonly releases: ReleaseCache;
  readonly exits: ExitWatcher;
  readonly bun: TenantBun;
  readonly records: RecordStore;
  readonly logs: LogStore;
  readonly ended: EndedIds;
  readonly spool: Spool;
  readonly metrics: AgentMetrics;
  /** Aborts when the agent ends without waiting for its instances any longer. */
  readonly signal: AbortSignal;
}
